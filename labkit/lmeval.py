"""The run's test questions as tasks of EleutherAI's lm-evaluation-harness, graded by `labkit.answers`.

Prompt wording, options, worked examples and token limit are the run's own. The harness does not tell a task whether an
answer was cut by the limit, so a cut answer that had already said the right thing counts as right there and as
truncated here; on answers that ended by themselves the scores are equal.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from labkit import runs
from labkit.answers import grade
from labkit.config import RunConfig
from labkit.prompts import prompt, worked_examples
from labkit.records import Completion, Problem, from_json, to_json

# a harness task names Python functions by `!function file.name`: this file is all the Python there is
FUNCTIONS = '''"""Graded as labkit grades; needs labkit installed."""

from labkit.lmeval import process_results

__all__ = ["process_results"]
'''


def write(folder: Path, config: RunConfig, target: Path) -> list[str]:
    """One task per benchmark of the run, with its questions, into `target`; returns the tasks' names."""
    groups: dict[str, list[Problem]] = {}
    for problem in runs.records(folder, "problems.jsonl", Problem):
        if problem.split == config.split:
            groups.setdefault(re.sub(r"[^\w.-]", "-", problem.benchmark), []).append(problem)
    (target / "labkit_grading.py").write_text(FUNCTIONS, encoding="utf-8")
    for benchmark, problems in groups.items():
        rows = [json.dumps(_row(problem, config), ensure_ascii=False) + "\n" for problem in problems]
        (target / f"{benchmark}.jsonl").write_text("".join(rows), encoding="utf-8", errors="backslashreplace")
        text = yaml.safe_dump(_task(benchmark, problems[0], config), sort_keys=False, allow_unicode=True)
        function = "process_results: !function labkit_grading.process_results\n"  # a tag that safe_dump does not write
        (target / f"labkit_{benchmark}.yaml").write_text(text + function, encoding="utf-8")
    return [f"labkit_{benchmark}" for benchmark in groups]


def _row(problem: Problem, config: RunConfig) -> dict[str, Any]:
    return {"prompt": prompt(problem, config.instruction), "target": problem.answer, "problem": to_json(problem)}


def _task(benchmark: str, first: Problem, config: RunConfig) -> dict[str, Any]:
    metrics = [
        {"metric": name, "aggregation": "mean", "higher_is_better": name != "unparsed"}
        for name in ("acc", "strict_acc", "unparsed")
    ]
    limits = {"until": [], "do_sample": False, "temperature": 0.0, "max_gen_toks": config.max_new_tokens}
    task: dict[str, Any] = {
        "task": f"labkit_{benchmark}",
        "dataset_path": "json",
        # a name without a folder is looked for where the harness is started: run it in this folder
        "dataset_kwargs": {"data_files": {"test": f"{benchmark}.jsonl"}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{target}}",
        "target_delimiter": "",
        "generation_kwargs": limits,
        "metric_list": metrics,
        "metadata": {"version": 1.0, "benchmark": benchmark, "split": first.split},
    }
    shots = worked_examples(first, config.shots, config.instruction)
    samples = [{"prompt": asked, "target": answer, "problem": ""} for asked, answer in shots]
    examples = {"fewshot_config": {"sampler": "first_n", "samples": samples}} if samples else {}
    return {**task, "num_fewshot": len(samples), **examples}


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """The harness's hook: a row of the task and what a model said, as acc, strict_acc and unparsed (0 or 1)."""
    problem = from_json(Problem, json.loads(doc["problem"]))
    outcome, reading = grade(Completion(results[0], "stop", 0), problem)
    right = outcome == "correct"
    return {
        "acc": float(right),
        "strict_acc": float(right and reading.strict),
        "unparsed": float(outcome == "unparsed"),
    }
