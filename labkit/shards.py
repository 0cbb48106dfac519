"""The first sampling of a run, cut over machines that share nothing, and put together again.

    labkit sample big --recipe smol --shard 3/8      # on the third of eight machines: writes runs/big.shard-3-of-8
    labkit merge big                                 # where all eight folders are: writes runs/big
    labkit distill big                               # goes on from there

A shard is every n-th training question, sampled by the teacher and by the initial student. A draw's random numbers
come from its address, so the merged traces are those that one machine would have written; only the last digits of their
log-probabilities depend on what was computed together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from labkit import distill, runs
from labkit.config import ADJUSTABLE, RunConfig
from labkit.records import LabError, Problem, Trace

STAGES = ("teacher", "teacher-wrong", "student-0")  # what may be sampled before the first epoch, in a fixed order


def parse(shard: str) -> tuple[int, int]:
    """(i, n) of "i/n"; raises `LabError` unless 1 <= i <= n."""
    found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", shard.strip())
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise LabError(f"--shard {shard!r}: write the part and how many there are, as 3/8")
    return int(found[1]), int(found[2])


def folder_of(runs_dir: Path, name: str, shard: tuple[int, int]) -> Path:
    """The folder that one shard of run `name` writes."""
    return runs.folder_of(runs_dir, f"{name}.shard-{shard[0]}-of-{shard[1]}")


def sample(folder: Path, shard: tuple[int, int]) -> str:
    """Sample or continue one prepared shard; returns `done` or `stopped`."""
    config = runs.load_config(folder)
    if config.method == "zero-shot":
        raise LabError(f"run {folder.name}: zero-shot samples nothing: there is nothing to cut into shards")
    return distill.run(folder, shard)


def merge(runs_dir: Path, name: str) -> dict[str, int]:
    """Put the finished shards of run `name` together into its folder; returns traces per stage.

    Raises `LabError` where a shard is missing, unfinished, or was made with other settings or questions, where
    a question's traces are missing or come twice, and where the run exists and has begun.
    """
    target = runs.folder_of(runs_dir, name)
    parts = _parts(runs_dir, name)
    config = _same_settings(parts)
    if target.exists():
        runs.check_same(target, config)
        if any(runs.done(target, f"traces/{stage}.jsonl") for stage in STAGES):
            raise LabError(f"run {name} has traces already: merge into a new name, or remove it first")
    problems = runs.records(parts[0], "problems.jsonl", Problem)
    train = [problem.id for problem in problems if problem.split == "train"]
    merged = {stage: _merged(parts, stage, train) for stage in STAGES}
    if not target.exists():
        runs.create(target, config, problems)
    with runs.writing(target):
        for stage, (traces, done) in merged.items():
            if done:
                runs.append(target, f"traces/{stage}.jsonl", traces, done)
    return {stage: len(traces) for stage, (traces, done) in merged.items() if done}


def _parts(runs_dir: Path, name: str) -> list[Path]:
    """The folders of all shards, the first one first."""
    found: dict[int, dict[int, Path]] = {}
    for path in runs_dir.glob(f"{name}.shard-*-of-*"):
        if numbers := re.fullmatch(re.escape(name) + r"\.shard-(\d+)-of-(\d+)", path.name):
            found.setdefault(int(numbers[2]), {})[int(numbers[1])] = path
    if len(found) != 1:
        what = f"cuts into {' and into '.join(map(str, sorted(found)))} parts" if found else "no folder"
        raise LabError(f"merge {name}: {what} {name}.shard-I-of-N in {runs_dir}: one whole set is needed")
    [(n, paths)] = found.items()
    if missing := [i for i in range(1, n + 1) if i not in paths]:
        raise LabError(f"merge {name}: shard {missing[0]}/{n} is missing in {runs_dir} ({len(missing)} of {n} are)")
    parts = [paths[i] for i in range(1, n + 1)]
    for part in parts:
        if (state := runs.status(part)["state"]) != "done":
            raise LabError(f"merge {name}: {part.name} is {state}: finish it with the command that started it")
    return parts


def _same_settings(parts: Sequence[Path]) -> RunConfig:
    """The settings of all shards; raises `LabError` for the first that differs, or has other questions."""
    first, questions = runs.load_config(parts[0]), (parts[0] / "problems.jsonl").read_bytes()
    for part in parts[1:]:
        other = runs.load_config(part)
        for field in type(first).model_fields:
            if field not in ADJUSTABLE and getattr(first, field) != getattr(other, field):
                mine, theirs = getattr(first, field), getattr(other, field)
                raise LabError(f"merge: {part.name} has {field} = {theirs}, {parts[0].name} has {mine}")
        if (part / "problems.jsonl").read_bytes() != questions:
            raise LabError(f"merge: {part.name} has other questions than {parts[0].name}: same data everywhere?")
    return first


def _merged(parts: Sequence[Path], stage: str, train: Sequence[str]) -> tuple[list[Trace], int]:
    """(traces in the order of the run's questions, finished questions) of one stage over all shards."""
    file = f"traces/{stage}.jsonl"
    by_problem: dict[str, list[Trace]] = {}
    for i, part in enumerate(parts):
        own = set(train[i :: len(parts)])
        for trace in runs.records(part, file, Trace):
            if trace.problem not in own:
                raise LabError(f"merge: {part.name} has traces of {trace.problem}, which is another shard's")
            by_problem.setdefault(trace.problem, []).append(trace)
    for problem, traces in by_problem.items():
        if [trace.draw for trace in traces] != list(range(len(traces))):
            raise LabError(f"merge: draws of {problem} under {file} are missing or come twice")
    done = sum(runs.done(part, file) for part in parts)
    return [trace for problem in train for trace in by_problem.get(problem, ())], done
