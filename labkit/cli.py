"""`labkit ...`: thin commands over the package.

Exit codes: 0 done, 1 failed, 2 bad input (one line says what), 3 stopped. Commands that need torch import it when they
are called, so that `labkit list` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit import compare as comparing
from labkit import config as configuring
from labkit import runs
from labkit.records import LabError, Score, Triplet
from labkit.triplets import tally

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False
)

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
RUNS = Path("runs")
SHARED = (["distill"], ["methods"], ["sample"])  # commands that several processes can share


@app.command()
def distill(
    name: Name,
    recipe: Recipe = None,
    set_: Set = None,
    data: Data = None,
    benchmarks: Benchmarks = None,
    stand_in: StandIn = False,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Distil a student: start a run, or continue it where it was stopped or killed.

    Examples: `labkit distill demo --recipe pocket` · `labkit distill demo` (continue) ·
    `labkit distill mine --recipe smol --data my-benchmarks --benchmarks gsm8k --set phi=1`
    """
    from labkit import distill as distilling

    folder = runs.folder_of(runs_dir, name)
    if recipe or not (folder / "config.json").exists():
        beside = folder.with_name(f"{name}.stand-in") if stand_in else None
        distilling.prepare(folder, _settings(recipe or "pocket", set_, data, benchmarks, beside))
    elif data or benchmarks:
        raise LabError(f"run {name} exists: continue it without --data and --benchmarks, or choose another name")
    elif set_:
        runs.adjust(folder, configuring.parse_changes(set_))
    state = distilling.run(folder)
    if state == "stopped":
        raise typer.Exit(3)
    _print_scores(folder, as_json)
    if not as_json:
        print(
            f"\nThe run lies in {folder}; the trained student in {folder / 'student'}.\n"
            f"Look at it: labkit show {name}, or in the browser: labkit app (from a clone: make app)"
        )


def _settings(
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


@app.command()
def sample(
    name: Name,
    shard: Annotated[str, typer.Option(help="Which part of how many, as 3/8.")],
    recipe: Recipe = None,
    set_: Set = None,
    data: Data = None,
    benchmarks: Benchmarks = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Sample one part of a run's first traces, on a machine of its own; `labkit merge` puts the parts together.

    Example: `labkit sample big --recipe smol --shard 3/8` writes runs/big.shard-3-of-8; the same command continues it.
    """
    from labkit import distill as distilling
    from labkit import shards

    part = shards.parse(shard)
    folder = shards.folder_of(runs_dir, name, part)
    if recipe or not (folder / "config.json").exists():
        distilling.prepare(folder, _settings(recipe or "pocket", set_, data, benchmarks))
    elif set_:
        runs.adjust(folder, configuring.parse_changes(set_))
    if shards.sample(folder, part) == "stopped":
        raise typer.Exit(3)
    print(f"{folder}: done; with all parts in one place: labkit merge {name}")


@app.command()
def merge(name: Name, runs_dir: RunsDir = RUNS) -> None:
    """Put the finished parts of `labkit sample` together into one run, which `labkit distill NAME` then continues."""
    from labkit import shards

    counts = shards.merge(runs_dir, name)
    print(f"{runs_dir / name}: " + ", ".join(f"{count} traces of {stage}" for stage, count in counts.items()))
    print(f"continue with: labkit distill {name}")


@app.command()
def methods(
    name: Name,
    recipe: Recipe = "pocket-quick",
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Seeds per method.")] = 1,
    set_: Set = None,
    data: Data = None,
    benchmarks: Benchmarks = None,
    stand_in: StandIn = False,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Run the paper's six methods, or the variants that a recipe lists, on the same questions and print one table.

    Example: `labkit methods pocket-table --recipe pocket-quick --seeds 1`. Each method and seed is a run of its own,
    NAME.METHOD.sSEED; the same command continues where it was stopped.
    """
    from labkit import methods as grouping

    recipe = recipe or "pocket-quick"
    beside = runs.folder_of(runs_dir, f"{name}.stand-in") if stand_in else None
    base = _settings(recipe, set_, data, benchmarks, beside)
    cells = grouping.group(runs_dir, name, base, seeds, configuring.variants(recipe) or grouping.METHODS)
    states = grouping.run_group(cells)
    rows = grouping.table(cells)
    print(json.dumps(rows)) if as_json else _print_methods(rows, seeds)
    if "stopped" in states.values():
        raise typer.Exit(3)
    if set(states.values()) != {"done"}:
        raise typer.Exit(1)


def _print_methods(rows: list[dict[str, Any]], seeds: int) -> None:
    names = [key for key in rows[0] if key not in {"method", "seeds"} and not key.endswith("_sd")] if rows else []
    cells = [[row["method"], *(_mean_sd(row[n], row[f"{n}_sd"]) for n in names)] for row in rows]
    print(table(["method", *names], cells))
    spread = f"mean ± sd over {seeds} seeds" if seeds > 1 else "one seed: differences of a few points mean nothing"
    print(f"accuracy in %, {spread}; intervals and paired tests: labkit compare A B")


def _mean_sd(mean: float, sd: float | None) -> str:
    return f"{100 * mean:.1f}" + (f" ± {100 * sd:.1f}" if sd is not None else "")


@app.command()
def plan(
    recipe: Recipe = "paper-tinyllama",
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Seeds per method.")] = 1,
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
    from labkit import pilot, planning

    given = {"data": data, "benchmarks": benchmarks}
    changes = {**configuring.parse_changes(set_ or []), **{key: value for key, value in given.items() if value}}
    found = planning.rates(pilot.rates(runs.folder_of(runs_dir, from_)), f"measured in run {from_}") if from_ else None
    found = planning.rates(planning.read_rates(rates), f"from {rates.name}", found) if rates else found
    result = planning.plan(planning.cells(recipe or "pocket", changes, seeds, single), found or planning.rates())
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


@app.command("list")
def list_(runs_dir: RunsDir = RUNS, as_json: Json = False) -> None:
    """List the runs, newest first."""
    rows = runs.listing(runs_dir)
    if as_json:
        print(json.dumps(rows))
    elif not rows:
        print(f"no runs in {runs_dir}: start one with `labkit distill demo --recipe pocket`")
    else:
        fields = ["name", "state", "method", "student", "epoch", "seed"]
        print(table(fields, [[str(row.get(field, "")) for field in fields] for row in rows]))


@app.command()
def show(name: Name, runs_dir: RunsDir = RUNS, as_json: Json = False) -> None:
    """Show one run: state, settings that matter, what was sampled and paired, and its scores."""
    folder = runs.folder_of(runs_dir, name)
    state, config = runs.status(folder), runs.load_config(folder)
    events = list(runs.rows(folder / "events.jsonl"))
    if as_json:
        scores = [asdict(score) for score in runs.records(folder, "scores.jsonl", Score)]
        print(
            json.dumps({"status": state, "config": config.model_dump(mode="json"), "events": events, "scores": scores})
        )
        return
    print(f"{name}: {state['state']}" + (f" ({state['reason']})" if state.get("reason") else ""))
    print(f"{config.policy}; teacher {config.teacher}, student {config.student}, seed {config.seed}\n")
    _print_sampling(events)
    _print_pairs(folder, config.epochs)
    _print_scores(folder, False)


def _print_sampling(events: list[dict[str, Any]]) -> None:
    stages = {event["stage"]: event for event in events if event.get("event") == "sampled"}
    fields = ["draws", "kept", "near-copy", "correct", "wrong", "unparsed", "truncated", "short"]
    if stages:
        print(
            table(["traces", *fields], [[stage, *(str(row[f]) for f in fields)] for stage, row in stages.items()]), "\n"
        )


def _print_pairs(folder: Path, epochs: int) -> None:
    rows = []
    for epoch in range(1, epochs + 1):
        if pairs := runs.records(folder, f"triplets/epoch-{epoch}.jsonl", Triplet):
            counts = tally(pairs)
            rows.append([str(epoch), *(f"{value:g}" for value in counts.values())])
    if rows:
        print(table(["epoch", *counts], rows), "\n")


def _print_scores(folder: Path, as_json: bool) -> None:
    scores = runs.records(folder, "scores.jsonl", Score)
    if as_json:
        print(json.dumps([asdict(score) for score in scores]))
        return
    fields = ["correct", "wrong", "unparsed", "truncated", "total"]
    rows = [
        [f"{s.epoch}", s.benchmark, s.split, *(str(getattr(s, f)) for f in fields), f"{100 * s.accuracy:.1f}",
         f"{100 * s.low:.1f} - {100 * s.high:.1f}"]
        for s in scores
    ]  # fmt: skip
    for epoch in sorted({score.epoch for score in scores}):
        values = [score.accuracy for score in scores if score.epoch == epoch]
        rows.append([str(epoch), "mean", "", "", "", "", "", "", f"{100 * sum(values) / len(values):.1f}", ""])
    print(table(["epoch", "benchmark", "split", *fields, "accuracy %", "95 %"], rows))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="Run A.")],
    second: Annotated[str, typer.Argument(help="Run B.")],
    first_epoch: Annotated[int | None, typer.Option(help="Epoch of A (default: its last).")] = None,
    second_epoch: Annotated[int | None, typer.Option(help="Epoch of B (default: its last).")] = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> None:
    """Compare two runs on the questions both answered: paired interval, exact McNemar, Holm over benchmarks.

    Example: did training help? `labkit compare demo demo --first-epoch 0`
    """
    answers = [
        comparing.last_answers(runs.folder_of(runs_dir, name), epoch)
        for name, epoch in ((first, first_epoch), (second, second_epoch))
    ]
    rows = comparing.compare(*answers)
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    head = ["benchmark", "n", "A %", "B %", "B - A", "95 %", "only A", "only B", "p", "p (Holm)"]
    print(table(head, [_comparison(row) for row in rows]))
    print("paired bootstrap over questions; p: exact McNemar test, two-sided; the mean weighs benchmarks equally")


def _comparison(row: comparing.Comparison) -> list[str]:
    adjusted = "" if row.p_holm is None else f"{row.p_holm:.3g}"
    return [
        row.benchmark, str(row.questions), f"{100 * row.first:.1f}", f"{100 * row.second:.1f}",
        f"{100 * row.difference:+.1f}", f"{100 * row.low:+.1f} - {100 * row.high:+.1f}",
        str(row.only_first), str(row.only_second), f"{row.p:.3g}", adjusted,
    ]  # fmt: skip


@app.command("export")
def export_(
    name: Name,
    kind: Annotated[str, typer.Option("--format", help="trl, llama-factory, axolotl, dataset, model or lm-eval.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="New folder to write.")],
    epoch: Annotated[int | None, typer.Option(min=1, help="Only this epoch's pairs (default: all).")] = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Write a run's pairs, traces or student for other tools. Nothing is uploaded.

    Example: `labkit export demo --format trl -o demo-trl`
    """
    from labkit import export as exporting

    print(f"{out}: {exporting.export(runs.folder_of(runs_dir, name), kind, out, epoch)}")


@app.command()
def report(
    names: Annotated[list[str], typer.Argument(help="A run, two runs to compare, or the name of a group of methods.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; report-NAME.html if none.")
    ] = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Write one HTML file to hand in: scores, pairs, statistics and settings; offline, nothing else needed.

    Examples: `labkit report demo` · `labkit report first second -o both.html` · `labkit report my-table`
    """
    from labkit import report as reporting

    document = reporting.make(runs_dir, names)
    path = output or Path(f"report-{'-'.join(names)}.html")
    reporting.write(document, path)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser, print it, hand it in")


@app.command()
def stop(name: Name, runs_dir: RunsDir = RUNS) -> None:
    """Ask a live run to save and stop after the step in hand."""
    asked = runs.stop(runs.folder_of(runs_dir, name))
    print(f"{name}: " + ("asked to stop; it saves and ends after its step" if asked else "is not running"))


@app.command()
def settings() -> None:
    """List every setting with its default and what it does."""
    fields = configuring.RunConfig.model_fields
    print(table(["setting", "default", ""], [[n, _default(f), f.description or ""] for n, f in fields.items()]))


def _default(field: Any) -> str:
    return "required" if field.is_required() else str(field.default)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed, which recipes can run here, free memory and disk, and what is missing."""
    from labkit import doctor as examining

    found = examining.examine()
    print(json.dumps(found)) if as_json else print(examining.describe(found))


@app.command("app")
def app_(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 7860,
    runs_dir: RunsDir = RUNS,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs a password.")
    ] = "127.0.0.1",
) -> None:
    """Open the dashboard: traces, pairs, accuracy, and runs to start and follow.

    Beyond this machine: `LABKIT_AUTH=user:password labkit app --host 0.0.0.0`.
    """
    from app.main import launch

    launch(runs_dir, port, host=host)


@app.command("convert-internlm2")
def convert_internlm2(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of an InternLM2 or InternLM2.5 checkpoint.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write; it must not exist.")],
) -> None:
    """Write an InternLM2 checkpoint as a plain Llama one, tokenizer and chat template included.

    Not needed for labkit itself, which reads such folders as they are: for vLLM, llama.cpp, TRL and the rest.
    """
    from labkit import conversion

    words = conversion.convert(source, target)
    print(
        f"{target}: a plain Llama checkpoint" + ("" if words else ", without a tokenizer: SRC has no tokenizer.model")
    )


@app.command("pocket-build")
def pocket_build(
    folder: Annotated[Path, typer.Argument(help="Where the models are written.")],
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
) -> None:
    """Train the pocket teacher and students again from scratch, as they ship."""
    from labkit import pocket_models

    pocket_models.build(folder, seed=seed)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell, two spaces apart."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    )


def main() -> None:
    """The console script: one line and an exit code for whatever goes wrong."""
    try:
        _launched() if os.environ.get("WORLD_SIZE", "1") != "1" and sys.argv[1:2] in SHARED else app()
    except (LabError, OSError) as error:
        _end(error, 2)
    except KeyboardInterrupt:
        _end("stopped", 3)
    except Exception as error:
        _end(f"failed: {type(error).__name__}: {error} (the run's log.txt has the details)", 1)


def _launched() -> None:
    """One of several processes: the first runs the command, the others follow it. See `labkit.processes`."""
    from labkit import crew, processes

    if not processes.launched():
        return app()
    processes.join()
    if processes.rank():
        return crew.follow()
    try:
        app()
    except SystemExit as end:
        if end.code in (None, 0, 3):
            processes.order("end")
        raise


def _end(message: object, code: int) -> None:
    print(f"labkit: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(code)
