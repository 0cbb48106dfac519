"""`labkit methods` and `labkit ablate`: groups of runs. Thin, as cli.py is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

import typer

from labkit import config as configuring
from labkit import method_rows, method_text, runs
from labkit import sweeps as sweeping
from labkit.cli_options import (
    RUNS,
    Benchmarks,
    Data,
    Jobs,
    Json,
    Name,
    Recipe,
    RunsDir,
    Seeds,
    Set,
    StandIn,
    names_of,
    settings_of,
)  # fmt: skip


def methods(
    name: Name,
    recipe: Recipe = "pocket-quick",
    seeds: Seeds = 1,
    students: Annotated[str | None, typer.Option(help="Students, comma-separated: a table for each.")] = None,
    methods: Annotated[
        str | None, typer.Option(help="Rows, comma-separated; by default the paper's six and the matched ones.")
    ] = None,
    jobs: Jobs = 1,
    set_: Set = None,
    data: Data = None,
    benchmarks: Benchmarks = None,
    stand_in: StandIn = False,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Run the paper's six methods and fine-tuning at equal steps and equal compute, or the variants of a recipe.

    Example: `labkit methods pocket-table --recipe pocket-quick --seeds 1`. Each method and seed is a run of its own,
    NAME.METHOD.sSEED; with several students NAME-STUDENT.METHOD.sSEED. The same command continues where it was stopped;
    `labkit report NAME` makes a page of it. Rows beyond the paper: `--methods orpo-mixed,orpo-sft-first,...`.
    """
    from labkit import methods as grouping

    recipe = recipe or "pocket-quick"
    beside = runs.folder_of(runs_dir, f"{name}.stand-in") if stand_in else None
    base = settings_of(recipe, set_, data, benchmarks, beside)
    variants = method_rows.chosen(base, names_of(methods), configuring.variants(recipe))
    groups = {
        label: grouping.group(runs_dir, label, one, seeds, variants)
        for label, one in grouping.by_student(name, base, names_of(students)).items()
    }
    states = grouping.run_group(
        {(label, *key): cell for label, cells in groups.items() for key, cell in cells.items()}, jobs
    )
    found = [grouping.summary(label, cells) for label, cells in groups.items()]
    print(json.dumps(found)) if as_json else print("\n\n".join(map(method_text.tables, found)))
    _exit_by(states.values())


def ablate(
    name: Name,
    sweep: Annotated[
        list[str],
        typer.Option(help="A setting and its values: FIELD=v1,v2,...; FIELD alone: the lab's standard values."),
    ],
    recipe: Recipe = "pocket-quick",
    seeds: Seeds = 1,
    jobs: Jobs = 1,
    set_: Set = None,
    data: Data = None,
    benchmarks: Benchmarks = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Vary one setting at a time around a recipe, and print how accuracy changes.

    Example: `labkit ablate around --recipe pocket --sweep phi --sweep lam=0,0.1,1 --seeds 3`. Each value and seed is a
    run of its own, NAME.FIELD-VALUE.sSEED; the recipe itself is NAME.base. The same command continues, and one with
    another sweep adds to it; `labkit report NAME` draws the curves.
    """
    from labkit import methods as grouping

    base = settings_of(recipe or "pocket-quick", set_, data, benchmarks)
    cells = grouping.group(runs_dir, name, base, seeds, sweeping.parse(sweep, base))
    states = grouping.run_group(cells, jobs)
    found = sweeping.points({cell: folder for cell, (folder, _) in cells.items() if folder.exists()})
    plain = {field: [asdict(point) for point in line] for field, line in found.items()}
    print(json.dumps(plain)) if as_json else print(method_text.sweeps(found))
    _exit_by(states.values())


def _exit_by(states: Iterable[str]) -> None:
    """Exit code 3 if a run of a group was stopped, 1 if one failed."""
    found = set(states)
    if "stopped" in found:
        raise typer.Exit(3)
    if found != {"done"}:
        raise typer.Exit(1)
