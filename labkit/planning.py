"""What a recipe's whole table takes: draws, kept traces, tokens and GPU hours by stage. Arithmetic, nothing is run.

    rates = planning.rates(measured, "pilot")    # what a pilot measured, in place of the assumptions
    found = planning.plan(planning.cells("paper-tinyllama", {}, seeds=3), rates)

Of each stage: draws = questions x min(wanted / acceptance, max_draws), hours = tokens / speed. Cells of the same seed
share the teacher's traces, the first wrong ones and the initial student's answers, as `labkit methods` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from labkit import benchmarks, config, method_rows, triplets
from labkit.config import RunConfig
from labkit.records import LabError

SIZES = {  # rows of the hub's train and test split; StrategyQA: the fixed cut of its public rows
    "medqa_usmle_4opt": (10178, 1273),
    "arc_challenge": (1119, 1172),
    "strategyqa": (1603, 687),
    "openbookqa": (4957, 500),
    "gsm8k": (7473, 1319),
}
ASSUMED: dict[str, tuple[float, str]] = {  # round numbers to begin with, none of them measured
    "teacher_acceptance": (0.5, "share of a teacher's draws that is kept: right, strictly read, not a near-copy"),
    "student_acceptance": (0.5, "share of a student's draws that is kept: wrong, not a near-copy"),
    "teacher_tokens": (200.0, "tokens of a teacher's draw"),
    "student_tokens": (200.0, "tokens of a student's draw"),
    "answer_tokens": (200.0, "tokens of a greedy answer to a test question"),
    "teacher_speed": (1000.0, "tokens a second that the teacher writes on one GPU"),
    "student_speed": (2000.0, "tokens a second that the student writes on one GPU, sampling or answering"),
    "training_speed": (5.0, "traces a second, chosen or rejected, that one GPU trains on"),
}
Rates = dict[str, dict[str, Any]]  # name -> {"value": number or {benchmark or "all": number}, "source": text}
Cell = tuple[str, int, RunConfig]  # method or variant, seed, settings


@dataclass(frozen=True)
class Work:
    """One stage on one benchmark's questions; tokens are those written, or in training those of the traces read."""

    stage: str
    benchmark: str
    questions: int
    draws: float
    kept: float
    tokens: float
    gpu_hours: float


def rates(measured: Mapping[str, Any] | None = None, source: str = "", base: Rates | None = None) -> Rates:
    """All rates, each with where it comes from: `measured` on top of `base`, or of the assumptions.

    Raises `LabError` for a name or value that makes no sense.
    """
    assumed = {name: {"value": value, "source": "assumed"} for name, (value, _) in ASSUMED.items()}
    found: Rates = dict(base or assumed)
    for name, value in (measured or {}).items():
        if name not in ASSUMED:
            raise LabError(f"rate {name!r}: unknown: one of {', '.join(ASSUMED)}")
        for number in value.values() if isinstance(value, dict) else [value]:
            good = isinstance(number, int | float) and not isinstance(number, bool) and number > 0
            if not good or (name.endswith("acceptance") and number > 1):
                allowed = "above 0, at most 1" if name.endswith("acceptance") else "a number above 0"
                raise LabError(f"rate {name} = {number!r}: must be {allowed}")
        found[name] = {"value": value, "source": source}
    return found


def read_rates(path: Path) -> dict[str, Any]:
    """Rates of a YAML or JSON file, each a number or one per benchmark: `student_tokens: {gsm8k: 150, all: 200}`."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LabError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise LabError(f"{path}: expected lines of `rate: number`; the rates are {', '.join(ASSUMED)}")
    return values


def cells(
    recipe: str, changes: dict[str, Any], seeds: int = 1, single: bool = False, names: Sequence[str] = ()
) -> list[Cell]:
    """The runs that `labkit methods` would make of a recipe (`names`: its --methods), or with `single` its one run.

    Raises `LabError` for a name there is not.
    """
    base = config.recipe(recipe, changes)
    rows = {base.policy: {}} if single else method_rows.chosen(base, names, config.variants(recipe))
    return [
        (name, seed, config.configure({**base.model_dump(), **what, "seed": base.seed + seed}))
        for seed in range(seeds)
        for name, what in rows.items()
    ]


def plan(table: Iterable[Cell], given: Rates) -> dict[str, Any]:
    """`stages`, `benchmarks`, `cells` and `total` of the whole table, and the `rates` they follow from."""
    table, paid = list(table), set()
    done: list[tuple[str, Work]] = []
    for name, seed, settings in table:
        for work in _works(settings, given):
            key = (seed, work.stage, work.benchmark, _shared(work.stage, settings))
            if key[3] is None or key not in paid:
                paid.add(key)
                done.append((name, work))
    sizes = {name: size(name, table[0][2]) for name in table[0][2].benchmarks}
    return {
        "recipe": table[0][2].recipe,
        "seeds": len({seed for _, seed, _ in table}),
        "questions": {name: {"train": train, "test": test} for name, (train, test) in sizes.items()},
        "stages": _sums((work.stage, work) for _, work in done),
        "benchmarks": _sums((work.benchmark, work) for _, work in done),
        "cells": _sums((name, work) for name, work in done),
        "total": _sums(("total", work) for _, work in done)["total"],
        "rates": given,
    }


def _sums(rows: Iterable[tuple[str, Work]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, work in rows:
        row = found.setdefault(name, dict.fromkeys(("draws", "kept", "tokens", "gpu_hours"), 0.0))
        for field in row:
            row[field] += asdict(work)[field]
    return found


def _shared(stage: str, settings: RunConfig) -> str | None:
    """What decides a stage that cells may share; None for a stage that each has for itself."""
    fields = method_rows.SHARED.get(stage)
    return json.dumps(settings.model_dump(mode="json", include=fields)) if fields else None


def size(benchmark: str, settings: RunConfig) -> tuple[int, int]:
    """Training and test questions of a run: a local or generated benchmark is counted, the hub's sizes are known."""
    if benchmark in SIZES and settings.data is None:
        train, test = SIZES[benchmark]
    else:
        train, test = (len(benchmarks.load(benchmark, split, settings.data)) for split in ("train", settings.split))
    return min(train, settings.problems or train), min(test, settings.test_problems or test)


def _works(settings: RunConfig, given: Rates) -> Iterator[Work]:
    """The stages of one run, in its order, per benchmark."""
    for benchmark in settings.benchmarks:
        train, test = size(benchmark, settings)
        of = {name: _of(rate["value"], benchmark) for name, rate in given.items()}
        yield _write("answers-0", benchmark, test, 1, 0, of["answer_tokens"], of["student_speed"])
        if settings.method == "zero-shot":
            continue
        teacher = _sample("teacher", benchmark, train, settings.k, "teacher", settings, of)
        yield teacher
        yield from _negatives(teacher, settings, of)
        once = settings.method == "single-cot" and not settings.repeat_single
        chosen = min(teacher.kept, train) if once else teacher.kept
        contrasted = settings.epochs - settings.sft_epochs if settings.method == "orpo" else 0  # epochs
        sides = chosen * (settings.epochs + contrasted)
        tokens = chosen * (settings.epochs * of["teacher_tokens"] + contrasted * of["student_tokens"])
        hours = sides / of["training_speed"] / 3600
        yield Work("training", benchmark, train, 0, 0, tokens, hours)
        later = len({*range(settings.evaluate_every, settings.epochs + 1, settings.evaluate_every), settings.epochs})
        yield _write("answers", benchmark, later * test, 1, 0, of["answer_tokens"], of["student_speed"])


def _negatives(teacher: Work, settings: RunConfig, of: dict[str, float]) -> Iterator[Work]:
    """Wrong traces: as many as chosen ones at first, and in each later epoch those that its coins ask of the newest."""
    if settings.method != "orpo":
        return
    name, train, wanted = teacher.benchmark, teacher.questions, teacher.kept / teacher.questions
    if settings.negatives != "student":
        yield _sample("teacher-wrong", name, train, wanted, "teacher", settings, of, 1 - of["teacher_acceptance"])
    if settings.negatives != "teacher":
        yield _sample("student-0", name, train, wanted, "student", settings, of)
        for share in filter(None, _fresh(settings)):
            yield _sample("student-fresh", name, train, wanted * share, "student", settings, of)


def _fresh(settings: RunConfig) -> Iterator[float]:
    """The expected share of an epoch's negatives that the newest student is asked for, for each epoch that asks it."""
    for epoch in range(max(2, settings.sft_epochs + 1), settings.epochs + 1):
        newest = 1 / sum(settings.past_weight**age for age in range(epoch - 1))  # see triplets.sources
        yield newest * triplets.phi_at(settings.phi, settings.phi_schedule, epoch, settings.epochs)


def _sample(
    stage: str, benchmark: str, questions: int, wanted: float, side: str, settings: RunConfig, of: dict[str, float],
    acceptance: float | None = None,
) -> Work:  # fmt: skip
    share = of[f"{side}_acceptance"] if acceptance is None else acceptance
    draws = min(wanted / share, settings.max_draws) if share else settings.max_draws
    speed = of[f"{side}_speed"]
    recorded = side == "teacher" and settings.teacher.startswith("traces:")  # written already: no GPU takes part
    return _write(stage, benchmark, questions, draws, draws * share, of[f"{side}_tokens"], None if recorded else speed)


def _write(
    stage: str, benchmark: str, questions: int, draws: float, kept: float, tokens: float, speed: float | None
) -> Work:
    """`draws` and `kept` per question, `tokens` per draw."""
    whole = questions * draws * tokens
    hours = whole / speed / 3600 if speed else 0.0
    return Work(stage, benchmark, questions, questions * draws, questions * kept, whole, hours)


def _of(value: Any, benchmark: str) -> float:
    """A rate for one benchmark: its own, or the one for all."""
    if not isinstance(value, dict):
        return float(value)
    found = value.get(benchmark, value.get("all"))
    if found is None:
        raise LabError(f"a rate names {', '.join(value)} but neither {benchmark} nor `all`")
    return float(found)
