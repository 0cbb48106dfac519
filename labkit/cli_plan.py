"""`labkit plan`: what a recipe's table takes, in print. Thin, as cli.py is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit import config as configuring
from labkit import pilot, planning, runs
from labkit.cli_options import RUNS, Benchmarks, Data, Json, Recipe, RunsDir, Seeds, Set, names_of
from labkit.method_text import table


def plan(
    recipe: Recipe = "paper-tinyllama",
    seeds: Seeds = 1,
    methods: Annotated[str | None, typer.Option(help="Rows, comma-separated, as for `labkit methods`.")] = None,
    single: Annotated[bool, typer.Option("--single", help="Plan the recipe's one run, not its table.")] = False,
    from_: Annotated[str | None, typer.Option("--from", help="Take rates from this run, a pilot.")] = None,
    rates: Annotated[Path | None, typer.Option(help="Take rates from this YAML or JSON file.")] = None,
    set_: Set = None,
    data: Data = None,
    benchmarks: Benchmarks = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Say what a recipe's whole table takes: traces, tokens and GPU hours by stage. Arithmetic: nothing is run.

    Examples: `labkit plan --recipe paper-tinyllama --seeds 3` · `labkit plan --recipe paper-tinyllama --from pilot`
    """
    given = {"data": data, "benchmarks": benchmarks}
    changes = {**configuring.parse_changes(set_ or []), **{key: value for key, value in given.items() if value}}
    found = planning.rates(pilot.rates(runs.folder_of(runs_dir, from_)), f"measured in run {from_}") if from_ else None
    found = planning.rates(planning.read_rates(rates), f"from {rates.name}", found) if rates else found
    cells = planning.cells(recipe or "pocket", changes, seeds, single, names_of(methods))
    result = planning.plan(cells, found or planning.rates())
    print(json.dumps(result)) if as_json else _print_plan(result)


def _print_plan(found: dict[str, Any]) -> None:
    sizes = [[name, f"{row['train']:,}", f"{row['test']:,}"] for name, row in found["questions"].items()]
    print(table(["benchmark", "training questions", "test questions"], sizes), "\n")
    for kind in ("stages", "benchmarks", "cells"):
        head = [kind[:-1], "draws", "kept", "million tokens", "GPU hours"]
        print(table(head, [_work(name, row) for name, row in {**found[kind], "total": found["total"]}.items()]), "\n")
    rows = [[name, _rate(rate["value"]), rate["source"]] for name, rate in found["rates"].items()]
    print(table(["rate", "value", "source"], rows))
    print(
        "GPU hours: hours of one process, on the machine that the speeds belong to; training counts its traces' tokens"
    )
    if any(rate["source"] == "assumed" for rate in found["rates"].values()):
        print("assumed rates are round numbers that nobody measured: run a pilot, then give it by --from RUN")


def _work(name: str, row: dict[str, float]) -> list[str]:
    return [
        name,
        f"{row['draws']:,.0f}",
        f"{row['kept']:,.0f}",
        f"{row['tokens'] / 1e6:,.2f}",
        f"{row['gpu_hours']:,.2f}",
    ]


def _rate(value: Any) -> str:
    return (
        ", ".join(f"{name} {number:g}" for name, number in value.items()) if isinstance(value, dict) else f"{value:g}"
    )
