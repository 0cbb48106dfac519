"""The paper's six methods, or a recipe's variants, as a group of runs that share what they have in common per seed.

labkit methods my-table --recipe pocket --seeds 3
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit import distill, groups, runs
from labkit.config import RunConfig, configure
from labkit.records import LabError, Score
from labkit.stages import say

METHODS: dict[str, dict[str, Any]] = {
    "zero-shot": {"method": "zero-shot"},
    "single-cot": {"method": "single-cot"},
    "diverse-cot": {"method": "diverse-cot"},
    "orpo-off": {"method": "orpo", "phi": 0.0},
    "orpo-on": {"method": "orpo", "phi": 1.0},
    "orpo-mixed": {"method": "orpo", "phi": 0.5},
}
POLICY = {"method", "phi", "negatives"}  # settings that the first samples and answers do not depend on
SAMPLING = {"k", "max_draws"}  # that the answers do not depend on
Variants = Mapping[str, Mapping[str, Any]]
Cells = dict[tuple[str, int], tuple[Path, RunConfig]]


def group(runs_dir: Path, name: str, base: RunConfig, seeds: int, variants: Variants = METHODS) -> Cells:
    """(method, seed) -> run folder and settings, in the order in which they are run; `variants`: what each changes."""
    return {
        (method, seed): (
            runs.folder_of(runs_dir, f"{name}.{method}.s{seed}"),
            configure({**base.model_dump(), **changes, "seed": base.seed + seed}),
        )
        for seed in range(seeds)
        for method, changes in variants.items()
    }


def run_group(cells: Cells) -> dict[tuple[str, int], str]:
    """Run every cell, passing on what the cells before it made of the same seed; returns each one's final state.

    A failing cell does not end the rest (its status says why); a stopped one does. Raises `LabError` for bad input.
    """
    states: dict[tuple[str, int], str] = {}
    for (method, seed), (folder, config) in cells.items():
        say(f"--- {method}, seed {config.seed}: run {folder.name}")
        distill.prepare(folder, config)
        for (_, other), (source, theirs) in cells.items():
            if other == seed and source != folder and source.exists():
                share(source, folder, theirs, config)
        try:
            states[method, seed] = distill.run(folder)
        except LabError:
            raise
        except Exception as error:
            states[method, seed] = f"failed: {error}"
            say(f"{folder.name} failed: {error}")
        if states[method, seed] == "stopped":
            break
    return states


def share(source: Path, target: Path, theirs: RunConfig, ours: RunConfig) -> None:
    """Copy what two runs have in common: the teacher's traces and the initial student's wrong ones where they differ in
    their policy alone, the initial student's evaluation also where they sample more or fewer."""
    if _alike(theirs, ours, POLICY):
        for file in ("traces/teacher.jsonl", "traces/student-0.jsonl"):
            _copy(source, target, file)
    before = [score for score in runs.records(source, "scores.jsonl", Score) if score.epoch == 0]
    if _alike(theirs, ours, POLICY | SAMPLING) and before and not runs.done(target, "scores.jsonl"):
        _copy(source, target, "answers/epoch-0.jsonl")
        runs.append(target, "scores.jsonl", before, 1)


def _copy(source: Path, target: Path, file: str) -> None:
    if runs.done(source, file) and not runs.done(target, file):
        (target / file).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / file, target / file)
        runs.commit(target, file, runs.done(source, file))


def _alike(first: RunConfig, second: RunConfig, but: set[str]) -> bool:
    return first.model_dump(exclude=but) == second.model_dump(exclude=but)


def table(cells: Cells) -> list[dict[str, Any]]:
    """Rows of methods: per benchmark and their mean, accuracy averaged over seeds and its sd (None for one seed)."""
    return groups.table({cell: folder for cell, (folder, _) in cells.items()})
