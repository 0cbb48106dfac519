"""`labkit report`: a run, two runs, or a group of methods as one HTML file, complete, offline, and made to be read.

labkit report demo                   # report-demo.html
labkit report first second -o both.html
labkit report my-table               # all of my-table.METHOD.sSEED
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit import compare, groups, report_group, report_tables, report_why, runs
from labkit.compare import Comparison, points
from labkit.config import RunConfig
from labkit.figures import percent
from labkit.markup import table, text
from labkit.records import LabError
from labkit.report_page import MARK, callout, fold, note, page
from labkit.report_run import Run, accuracy, at, curves, made_with, mean, need_scores, read, settings, training
from labkit.report_traces import flips, pairs, traces

TERMS = """<dl class="terms">
<dt>correct, wrong, unparsed, truncated</dt><dd>The answer equals the right one; is another one; could not be read from
what was said; or the text was cut at the token limit. Only the first counts as correct.</dd>
<dt>95 % interval of one accuracy</dt><dd>Wilson's score interval: where the true share may well
lie.</dd>
<dt>paired bootstrap</dt><dd>Both sides answered the same questions, so these are drawn again together, 10,000 times,
within each benchmark; 95 % of the differences lie in the interval.</dd>
<dt>exact McNemar test</dt><dd>Only questions that just one side got right can tell them apart. p is how often a fair
coin tossed over these would be at least as lopsided.</dd>
<dt>Holm</dt><dd>Several tests find something by luck more often than one; Holm's correction of p pays for that.</dd>
<dt>seed</dt><dd>Draws the training questions, all samples and the order of training. Another seed is another
experiment.</dd>
</dl>"""
ONE_SEED = (
    "One seed on each side: the interval covers the choice of test questions, not what another seed would have trained."
)


def make(runs_dir: Path, names: Sequence[str]) -> str:
    """The report of one run, of two runs, or of the group of runs NAME.METHOD.sSEED, as HTML.

    Raises `LabError` where there is nothing of that name, or no finished evaluation in it.
    """
    folders = [runs.folder_of(runs_dir, name) for name in names]
    if len(folders) == 2:
        return of_pair(*((folder, None) for folder in folders))
    if len(folders) != 1:
        raise LabError("a report is of one run, of two runs to compare, or of the name of a group of methods")
    if not (folders[0] / "config.json").exists() and (cells := groups.cells(runs_dir, names[0])):
        return of_group(names[0], cells)
    return of_run(folders[0])


def write(document: str, path: Path) -> None:
    """Write a report whole or not at all; raises `LabError` rather than overwrite a file that is not a report."""
    if path.is_dir() or not path.parent.is_dir():
        raise LabError(f"-o {path}: {'is a folder' if path.is_dir() else 'its folder does not exist'}; name a file")
    if path.exists():
        with open(path, encoding="utf-8", errors="replace") as old:
            if MARK not in old.read(500):
                raise LabError(f"-o {path}: exists and is not a report of labkit; choose another name")
    runs.replace(path, document)


def of_run(folder: Path) -> str:
    """The report of one run: before against after, traces, pairs, training, settings."""
    run = read(folder)
    need_scores(run)
    first, last = run.epochs[0], run.epochs[-1]
    shown = {_when(epoch): (run, at(run, epoch)) for epoch in (first, last)}
    answers = [compare.last_answers(folder, epoch) for epoch in (first, last)]
    rows = compare.compare(*answers) if last > first else []
    changed = flips(run.problems, compare.flips(*answers), (_when(first), _when(last))) if rows else ""
    sections = [
        ("In short", _short_run(run, rows)),
        ("Accuracy", accuracy(shown) + curves({folder.name: run.scores})),
        ("Before and after", report_tables.comparison(rows, "before", "after") + changed if rows else ""),
        ("Traces", traces(run)),
        ("Pairs", pairs(run)),
        ("Training", training(run) + report_why.of_run(folder)),
        ("Settings", settings(run)),
        ("How to read this", TERMS),
    ]
    tiles = _tiles([(_when(epoch), at(run, epoch)) for epoch in dict.fromkeys((first, last))], rows)
    return page("report of a run", folder.name, _lead(run), [*tiles, *_sizes(run)], sections)


def _when(epoch: int) -> str:
    return f"after epoch {epoch}" if epoch else "before training"


def _lead(run: Run) -> str:
    config = run.config
    return (
        f"<b>{text(config.policy)}</b>: teacher <b>{text(config.teacher)}</b>, student <b>{text(config.student)}</b>, "
        f"{len(config.benchmarks)} benchmarks, {text(config.split)} split, seed {config.seed}."
    )


def _sizes(run: Run) -> list[tuple[str, str, str]]:
    train = sum(problem.split == "train" for problem in run.problems.values())
    test = len(run.problems) - train
    trained = f"{train:,} to train on" if train else "nothing is trained"
    return [("Test questions", f"{test:,}", trained)]


def _tiles(scores: Sequence[tuple[str, Any]], rows: Sequence[Comparison]) -> list[tuple[str, str, str]]:
    """A tile per mean accuracy, and one for the paired difference."""
    found = [(f"Accuracy {text(label)}", percent(mean(one)), "mean over benchmarks") for label, one in scores]
    if rows:
        whole = rows[-1]
        span = f"points; 95 % {points(whole.low)} … {points(whole.high)}"
        found.append(("Difference", points(whole.difference), span))
    return found


def _short_run(run: Run, rows: Sequence[Comparison]) -> str:
    state, unfinished = run.status["state"], ""
    if state != "done":
        reason = run.status.get("reason") or "The report shows it as it is now."
        unfinished = callout(f"This run is not finished ({text(state)}).", text(reason), "bad")
    if not rows:
        return unfinished + callout("Nothing to compare.", "This run has one evaluation only.", "open")
    return (
        unfinished + _verdict(rows, "before training", "after training") + note(ONE_SEED.replace(" on each side", ""))
    )


def _verdict(rows: Sequence[Comparison], first: str, second: str) -> str:
    """The comparison in plain words: the finding, McNemar's coin, and the benchmarks that stand after Holm."""
    whole = rows[-1]
    finding, told = compare.verdict(whole, first, second)
    coin = (
        f"Of the {whole.only_first + whole.only_second:,} questions that just one of the two got right, "
        f"{whole.only_second:,} went to {second} and {whole.only_first:,} to {first}; a fair coin is at least as "
        f"lopsided with p = {whole.p:.2g} (exact McNemar test)."
    )
    kind = "open" if finding.startswith("No") else "good" if whole.difference > 0 else "bad"
    clear = [row for row in rows if row.p_holm is not None and row.p_holm < 0.05]
    each = "; ".join(f"{text(row.benchmark)} {points(row.difference)} points" for row in clear)
    by = (
        f"By benchmark, after Holm's correction: {each}."
        if clear
        else "In no single benchmark is a difference shown after Holm's correction."
    )
    return callout(f"{text(finding[0].upper() + finding[1:])}", text(told), kind) + f"<p>{text(coin)} {by}</p>"


def of_pair(first: tuple[Path, int | None], second: tuple[Path, int | None]) -> str:
    """The report of two (run folder, epoch or None for its last) on the questions that both answered."""
    sides = {label: _side(*point) for label, point in (("A", first), ("B", second))}
    found = [run for run, _ in sides.values()]
    answers = [compare.last_answers(run.folder, epoch) for run, epoch in sides.values()]
    rows = compare.compare(*answers)
    shown = {label: (run, at(run, epoch)) for label, (run, epoch) in sides.items()}
    names = [run.folder.name for run in found]
    if names[0] == names[1]:
        names = [f"{run.folder.name}, epoch {epoch}" for run, epoch in sides.values()]
    key = "".join(
        f"<p><b>{label}</b> is {text(run.folder.name)} {_when(epoch)}. {_lead(run)}</p>"
        for label, (run, epoch) in sides.items()
    )
    changed = flips(found[0].problems, compare.flips(*answers), ("A", "B"), "by ")
    sections = [
        ("In short", _verdict(rows, "A", "B") + key + note(ONE_SEED)),
        (
            "Accuracy",
            accuracy(shown) + curves({f"{label} · {run.folder.name}": run.scores for label, (run, _) in sides.items()}),
        ),
        ("A against B", report_tables.comparison(rows) + changed),
        ("Settings", differing({label: run.config for label, (run, _) in sides.items()}) + made_with(found)),
        ("How to read this", TERMS),
    ]
    tiles = _tiles([(label, scores) for label, (_, scores) in shown.items()], rows)
    return page("comparison of two runs", " and ".join(names), "The same questions, answered by both.", tiles, sections)


def _side(folder: Path, epoch: int | None) -> tuple[Run, int]:
    run = read(folder)
    need_scores(run)
    return run, run.epochs[-1] if epoch is None else epoch


def of_group(name: str, cells: report_group.Cells) -> str:
    """The report of a group of methods."""
    rows, said = groups.table(cells), groups.answers(cells)
    if not rows:
        raise LabError(f"group {name}: none of its {len(cells)} runs is done yet")
    found = groups.contrasts(said)
    first = read([folder for folder in cells.values() if groups.finals(folder)][-1])
    least = min(seed for _, seed in cells)
    lines = {method: read(folder).scores for (method, seed), folder in cells.items() if seed == least}
    example = next((folder for (method, _), folder in reversed(cells.items()) if (folder / "triplets").is_dir()), None)
    configs = {method: read(folder).config for (method, _), folder in reversed(cells.items())}
    swept = report_group.sweeps(cells)
    finding = ("Settings varied one at a time.", "See the curves below.") if swept else report_group.shown(found)
    sections = [
        ("In short", callout(*finding, "open") + f"<p>{report_group.seeds_said(rows)}</p>"),
        ("Methods", report_group.methods(cells, rows, said) + report_group.paper(first.config, rows)),
        ("Claims", report_group.claims(found) if found or not swept else ""),
        ("One setting at a time", swept),
        ("Answers", report_group.endings(said)),
        ("Why", report_why.of_group(cells, said, first.problems)),
        ("Epochs", curves(lines, whiskers=False, more=f" Seed {least} alone, without intervals.")),
        ("Pairs", pairs(read(example)) if example else ""),
        ("Settings", differing(dict(reversed(configs.items()))) + report_group.members(cells) + made_with([first])),
        ("How to read this", TERMS),
    ]
    top = max(rows, key=lambda row: row["mean"])
    tiles = [
        ("Highest mean", percent(top["mean"]), text(top["method"])),
        (
            "Methods",
            str(len(rows)),
            f"{len(cells)} runs, {sum(bool(groups.finals(one)) for one in cells.values())} done",
        ),
        *_sizes(first),
    ]
    who = f"Teacher <b>{text(first.config.teacher)}</b>, student <b>{text(first.config.student)}</b>"
    return page("a group of methods", name, f"{who}, the same test questions for all.", tiles, sections)


def differing(configs: dict[str, RunConfig]) -> str:
    """The settings in which runs differ side by side, and the rest folded."""
    values = {field: [getattr(one, field) for one in configs.values()] for field in RunConfig.model_fields}
    same = [field for field, row in values.items() if all(value == row[0] for value in row)]
    rows = [[text(field), *(_said(value) for value in row)] for field, row in values.items() if field not in same]
    common = "".join(f"<div><dt>{text(field)}</dt><dd>{_said(values[field][0])}</dd></div>" for field in same)
    body = table(["setting", *map(text, configs)], rows) if rows else note("Both have the same settings.")
    return body + fold("Settings that all share", f'<dl class="settings">{common}</dl>')


def _said(value: Any) -> str:
    return text(", ".join(value) if isinstance(value, tuple) else "none" if value is None else value)
