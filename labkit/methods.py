"""The paper's six methods as a group of runs: same questions, teacher traces and initial negatives per seed.

labkit methods my-table --recipe pocket --seeds 3
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from labkit import distill, groups, runs
from labkit.config import RunConfig, configure
from labkit.records import LabError
from labkit.stages import say

METHODS: dict[str, dict[str, Any]] = {
    "zero-shot": {"method": "zero-shot"},
    "single-cot": {"method": "single-cot"},
    "diverse-cot": {"method": "diverse-cot"},
    "orpo-off": {"method": "orpo", "phi": 0.0},
    "orpo-on": {"method": "orpo", "phi": 1.0},
    "orpo-mixed": {"method": "orpo", "phi": 0.5},
}
Cells = dict[tuple[str, int], tuple[Path, RunConfig]]


def group(runs_dir: Path, name: str, base: RunConfig, seeds: int) -> Cells:
    """(method, seed) -> run folder and settings, in the order in which they are run."""
    return {
        (method, seed): (
            runs.folder_of(runs_dir, f"{name}.{method}.s{seed}"),
            configure({**base.model_dump(), **changes, "seed": base.seed + seed}),
        )
        for seed in range(seeds)
        for method, changes in METHODS.items()
    }


def run_group(cells: Cells) -> dict[tuple[str, int], str]:
    """Run every cell, passing on what the cells before it made of the same seed; returns each one's final state.

    A failing cell does not end the rest (its status says why); a stopped one does. Raises `LabError` for bad input.
    """
    states: dict[tuple[str, int], str] = {}
    for (method, seed), (folder, config) in cells.items():
        say(f"--- {method}, seed {config.seed}: run {folder.name}")
        distill.prepare(folder, config)
        for (_, other), (source, _) in cells.items():
            if other == seed and source != folder and source.exists():
                share(source, folder)
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


def share(source: Path, target: Path) -> None:
    """Copy what two runs that differ only in their method have in common: the initial student's evaluation, the
    teacher's traces and the initial student's wrong ones."""
    files = ["traces/teacher.jsonl", "traces/student-0.jsonl"]
    if runs.done(source, "scores.jsonl") == 1:  # only epoch 0 is in it
        files += ["answers/epoch-0.jsonl", "scores.jsonl"]
    for file in files:
        if runs.done(source, file) and not runs.done(target, file):
            (target / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / file, target / file)
            runs.commit(target, file, runs.done(source, file))


def table(cells: Cells) -> list[dict[str, Any]]:
    """Rows of methods: per benchmark and their mean, accuracy averaged over seeds and its sd (None for one seed)."""
    return groups.table({cell: folder for cell, (folder, _) in cells.items()})
