"""What the notebooks share: settings that a test can shrink, runs in the folder beside them, exercises that check.

    folder = run("first", settings("pocket", problems=20))
    check(my_answer, lambda given: given == 7, "count the words once more")

With LABKIT_SMOKE=1 in the environment `settings` are cut down until a run takes seconds: for tests, not for reading.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labkit import distill, method_rows, methods, runs, sampling
from labkit.answers import Grader, grade
from labkit.config import RunConfig, recipe
from labkit.diversity import distinct_n
from labkit.generation import Generator, Request, Settings
from labkit.markup import differences
from labkit.models import Model, Tokenizer
from labkit.orpo import encode_response, token_logps
from labkit.packing import Example
from labkit.prompting import prompt_ids
from labkit.prompts import prompt
from labkit.records import Answer, Completion, LabError, Problem, Trace, Triplet
from labkit.stages import Lab

RUNS = Path("runs")
LIMITS = {"problems": 3, "test_problems": 4, "k": 3, "epochs": 2, "max_draws": 4, "max_new_tokens": 96, "batch": 16}


def smoke() -> bool:
    """Whether LABKIT_SMOKE asks for the smallest sizes."""
    return os.environ.get("LABKIT_SMOKE", "0") not in {"", "0"}


def few(n: int, small: int = 4) -> int:
    """`n`, or at most `small` of whatever is counted in a smoke test."""
    return min(n, small) if smoke() else n


def settings(name: str = "pocket", **changes: Any) -> RunConfig:
    """A recipe with changes, as `labkit.config.recipe`; in a smoke test no count exceeds `LIMITS`."""
    config = recipe(name, changes)
    if not smoke():
        return config
    counts = {field: min(getattr(config, field) or limit, limit) for field, limit in LIMITS.items()}
    return recipe(name, {**changes, **counts})


def run(
    name: str,
    config: RunConfig,
    algorithm: Callable[[Lab], None] = distill.distill,
    grader: Grader = grade,
    like: Path | None = None,
) -> Path:
    """Do the run `name` in `runs/` (or what is left of it), saying its progress here; returns its folder.

    `algorithm` and `grader` go to `labkit.distill.run`. What a run `like` it has made already and this one would make
    again byte by byte (traces of the same settings, the first evaluation) is copied. Raises `LabError` if a run of that
    name has other settings.
    """
    folder = runs.folder_of(RUNS, name)
    RUNS.mkdir(exist_ok=True)
    with _said():
        distill.prepare(folder, config)
        if like is not None:
            methods.share(like, folder, runs.load_config(like), config)
        distill.run(folder, algorithm=algorithm, grader=grader)
    return folder


def run_methods(
    name: str, config: RunConfig, seeds: int, rows: Sequence[str] = tuple(methods.METHODS)
) -> dict[tuple[str, int], Path]:
    """Do these rows of the table (see `labkit.method_rows`), all seeds side by side as with `labkit methods --jobs`,
    also where CPUs are fewer: three seeds in two rounds would leave one idle in the second.

    Returns (row, seed) -> run folder.
    """
    RUNS.mkdir(exist_ok=True)
    cells = methods.group(RUNS, name, config, seeds, method_rows.chosen(config, rows))
    jobs = few(min(seeds, 2 * (os.cpu_count() or 1)), 1)  # the smallest runs take less time than a process to start
    with _said():
        states = methods.run_group(cells, jobs=jobs)
    if set(states.values()) != {"done"}:
        raise LabError(f"group {name}: not every run is done: {states}")
    return {cell: folder for cell, (folder, _) in cells.items()}


def stop_at(name: str, stage: str) -> None:
    """Ask the run `name`, which may not have begun, to stop as soon as it is at a stage, as `epoch 2`."""
    folder = runs.folder_of(RUNS, name)

    def wait() -> None:
        while not (folder / "status.json").exists() or runs.status(folder).get("stage") != stage:
            time.sleep(0.02)
        runs.stop(folder)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _said() -> Any:
    """The lines of a run go where a notebook prints: on its error stream they would look like errors."""
    with contextlib.redirect_stderr(sys.stdout):
        yield


def draws(speaker: Generator, problems: Sequence[Problem], side: str, want: str, config: RunConfig) -> list[Trace]:
    """All draws of a search for `config.k` traces of each problem, with the addresses that a run gives them.

    `side`: `teacher` or `student` (the initial one); `want`: `correct` or `wrong`.
    """
    stage = "student-0" if side == "student" else "teacher" if want == "correct" else "teacher-wrong"
    job = sampling.Job(stage, side, 0, want)
    found = sampling.sample(speaker, problems, [config.k] * len(problems), job, config)
    return [trace for chunk in found for trace in chunk]


def answered(
    speaker: Generator, problems: Sequence[Problem], n: int, temperature: float, config: RunConfig
) -> list[tuple[list[Completion], list[str]]]:
    """`n` draws of each problem and their verdicts, whatever they are: nothing is searched for, nothing thrown away."""
    requests = [
        Request(one.id, prompt(one, config.instruction), tuple(f"0/{one.id}/{i}" for i in range(n))) for one in problems
    ]
    said = speaker.generate(requests, Settings(temperature, max_new_tokens=config.max_new_tokens))
    return [(draws, [grade(one, problem)[0] for one in draws]) for problem, draws in zip(problems, said, strict=True)]


def marked(text: str, other: str) -> str:
    """A text with [brackets] around the words that the other one does not have in that place."""
    for start, end in reversed(differences(text, other)[0]):
        text = f"{text[:start]}[{text[start:end]}]{text[end:]}"
    return text


def negatives(folder: Path) -> list[dict[str, float]]:
    """Per epoch of a run: fresh draws made for it, the share of them that was wrong (NaN for none), and how much the
    rejected traces of a question differ: the share of different ones, and distinct-2."""
    rows = []
    for epoch in range(1, runs.load_config(folder).epochs + 1):
        by_problem: dict[str, list[str]] = {}
        for pair in runs.records(folder, f"triplets/epoch-{epoch}.jsonl", Triplet):
            if pair.rejected is not None:
                by_problem.setdefault(pair.problem, []).append(pair.rejected)
        fresh = runs.records(folder, f"traces/student-{epoch - 1}.jsonl", Trace) if epoch > 1 else []
        rows.append({
            "epoch": epoch, "fresh draws": len(fresh),
            "wrong": _mean([trace.outcome == "wrong" for trace in fresh]),
            "different": _mean([len(set(texts)) / len(texts) for texts in by_problem.values()]),
            "distinct-2": _mean([distinct_n(texts, 2) for texts in by_problem.values()]),
        })  # fmt: skip
    return rows


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def examples(tokenizer: Tokenizer, questions: Sequence[str], *responses: Sequence[str]) -> list[Example]:
    """A batch for training or scoring: questions, their chosen responses and, if given, their rejected ones."""
    sides = [[encode_response(tokenizer, text) for text in side] for side in responses]
    rejected = sides[1] if len(sides) > 1 else [None] * len(questions)
    prompts = [tuple(prompt_ids(tokenizer, question)) for question in questions]
    return [Example(p, (c,), (r,)) for p, c, r in zip(prompts, sides[0], rejected, strict=True)]


def mean_logps(model: Model, tokenizer: Tokenizer, questions: Sequence[str], responses: Sequence[str]) -> list[float]:
    """How likely the model finds each response to its question: mean token log-probability, in nats."""
    found = token_logps(model, examples(tokenizer, questions, responses))
    return [float(chosen.mean()) for ((chosen, _),) in found]


def share_right(answers: Mapping[str, Answer], problems: Mapping[str, Problem], grader: Grader = grade) -> float:
    """Share of answers that `grader` calls correct, whatever their run was graded by. `problems`: id -> problem."""
    said = [(Completion(a.text, a.finish, a.tokens), problems[id]) for id, a in answers.items()]
    return _mean([grader(completion, problem)[0] == "correct" for completion, problem in said])


def check(given: Any, holds: Callable[[Any], bool], hint: str) -> None:
    """Say whether an exercise's answer is right; `...` (not answered yet) is no mistake, a wrong one gets the hint."""
    if given is ...:
        print("Waiting for your answer: put it in place of the dots above, run both cells again.")
    elif _holds(given, holds):
        print("Right.")
    else:
        print(f"Not yet. Hint: {hint}")


def _holds(given: Any, holds: Callable[[Any], bool]) -> bool:
    try:
        return bool(holds(given))
    except Exception:  # an answer of another kind than the question asks for: a wrong one, not a traceback
        return False
