"""The options that several commands share, and the settings that they add up to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from labkit import config as configuring

RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder that holds the runs.")]
Name = Annotated[str, typer.Argument(help="Name of the run: letters, digits, '.', '_', '-'.")]
Recipe = Annotated[str | None, typer.Option(help="Settings to start from: a shipped recipe, or a .yaml file of yours.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change a setting: field=value. See `labkit settings`.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Data = Annotated[str | None, typer.Option(help="Folder with one sub-folder per benchmark (train.jsonl, test.jsonl).")]
StandIn = Annotated[
    bool,
    typer.Option("--stand-in", help="Tiny random models of the same shape in place of the paper's, and a few rows."),
]
Benchmarks = Annotated[str | None, typer.Option(help="Benchmarks, comma-separated.")]
Seeds = Annotated[int, typer.Option(min=1, max=100, help="Seeds per method.")]
Jobs = Annotated[int, typer.Option(min=1, max=64, help="Seeds that run at the same time.")]
RUNS = Path("runs")


def settings_of(
    recipe: str, set_: list[str] | None, data: str | None, benchmarks: str | None, stand_in: Path | None = None
) -> configuring.RunConfig:
    """The recipe with what was given on top; with `stand_in`, cut down, and with the models made in that folder."""
    changes: dict[str, Any] = configuring.parse_changes(set_ or [])
    given = {"data": data, "benchmarks": benchmarks}
    changes |= {key: value for key, value in given.items() if value is not None}
    if not stand_in:
        return configuring.recipe(recipe, changes)
    from labkit import standins

    return standins.prepare(stand_in, standins.settings(recipe, changes))


def names_of(given: str | None) -> list[str]:
    """The parts of a comma-separated option."""
    return [part.strip() for part in (given or "").split(",") if part.strip()]
