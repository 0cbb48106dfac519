"""Two runs on the same questions: differences with paired intervals, exact McNemar, Holm, and the flips."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labkit import runs
from labkit.records import Answer, LabError, Problem, Score
from labkit.statistics import holm, mcnemar, paired_bootstrap


@dataclass(frozen=True)
class Comparison:
    """One benchmark (or `mean`, their macro-average) in two runs. Accuracies and differences are fractions."""

    benchmark: str
    questions: int
    first: float
    second: float
    difference: float  # second - first
    low: float  # 95 % paired bootstrap interval of the difference
    high: float
    only_first: int  # questions that just one of the two got right
    only_second: int
    p: float  # exact McNemar, two-sided
    p_holm: float | None  # adjusted over the benchmarks; None for the mean


def last_answers(folder: Path, epoch: int | None = None) -> dict[str, Answer]:
    """Problem id -> answer at an epoch (default: the last that has scores); raises `LabError` if there is none."""
    epochs = sorted({score.epoch for score in runs.records(folder, "scores.jsonl", Score)})
    if not epochs:
        raise LabError(f"run {folder.name}: no evaluation is finished yet")
    if epoch is not None and epoch not in epochs:
        raise LabError(f"run {folder.name}: epoch {epoch} was not evaluated; it has {', '.join(map(str, epochs))}")
    at = epochs[-1] if epoch is None else epoch
    return {answer.problem: answer for answer in runs.records(folder, f"answers/epoch-{at}.jsonl", Answer)}


def compare(first: dict[str, Answer], second: dict[str, Answer]) -> list[Comparison]:
    """A row per benchmark and, with several, the mean; over the questions that both answered.

    Raises `LabError` if they share none.
    """
    shared = [problem for problem in first if problem in second]
    if not shared:
        raise LabError("the two runs have no test question in common")
    names = list(dict.fromkeys(first[problem].benchmark for problem in shared))
    rows = []
    for name in names:
        rows.append(_row(name, *_right(first, second, [p for p in shared if first[p].benchmark == name])))
    adjusted = holm([row.p for row in rows])
    rows = [Comparison(**{**vars(row), "p_holm": p}) for row, p in zip(rows, adjusted, strict=True)]
    if len(names) > 1:
        rows.append(_row("mean", *_right(first, second, shared), [first[problem].benchmark for problem in shared]))
    return rows


def _right(first: dict[str, Answer], second: dict[str, Answer], problems: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Which of the problems each run got right, as 0 and 1."""
    return tuple(np.array([side[p].outcome == "correct" for p in problems], float) for side in (first, second))  # type: ignore[return-value]


def _row(name: str, one: np.ndarray, two: np.ndarray, strata: list[str] | None = None) -> Comparison:
    difference, low, high = paired_bootstrap(one, two, strata)
    only_first, only_second = int(((one == 1) & (two == 0)).sum()), int(((one == 0) & (two == 1)).sum())
    groups = [np.array(strata) == group for group in dict.fromkeys(strata)] if strata else [np.ones(len(one), bool)]
    return Comparison(
        benchmark=name,
        questions=len(one),
        first=float(np.mean([one[group].mean() for group in groups])),
        second=float(np.mean([two[group].mean() for group in groups])),
        difference=difference,
        low=low,
        high=high,
        only_first=only_first,
        only_second=only_second,
        p=mcnemar(only_first, only_second),
        p_holm=None,
    )


def flips(first: dict[str, Answer], second: dict[str, Answer]) -> list[tuple[Answer, Answer]]:
    """The questions that just one of the two runs got right, both answers side by side."""
    pairs = [(first[problem], second[problem]) for problem in first if problem in second]
    return [pair for pair in pairs if (pair[0].outcome == "correct") != (pair[1].outcome == "correct")]


def verdict(row: Comparison, first: str = "A", second: str = "B") -> tuple[str, str]:
    """What a row says in plain words, as (the finding, its numbers): a difference is shown only if the paired interval
    leaves zero out."""
    change, span = points(row.difference), f"95 % interval {points(row.low)} to {points(row.high)}"
    if row.low > 0 or row.high < 0:
        better, size = (second, row.difference) if row.difference > 0 else (first, -row.difference)
        return f"{better} is better by {100 * size:.1f} points", f"over {row.questions:,} shared questions ({span})."
    told = f"{second} − {first} is {change} points over {row.questions:,} shared questions, and the {span} holds zero."
    return "No difference shown:", told


def points(value: float) -> str:
    """A fraction as signed percentage points with one decimal and a true minus sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def chance(problems: Iterable[Problem]) -> dict[str, float]:
    """Accuracy of guessing, per benchmark of the questions that are evaluated: one over the number of choices, one
    half for yes and no, 0 otherwise."""
    found: dict[str, list[float]] = {}
    for problem in problems:
        if problem.split != "train":
            guess = 1 / len(problem.choices) if problem.choices else 0.5 if problem.kind == "boolean" else 0.0
            found.setdefault(problem.benchmark, []).append(guess)
    return {name: sum(values) / len(values) for name, values in found.items()}
