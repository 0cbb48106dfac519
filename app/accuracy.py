"""Accuracy tab: outcome bars, curves over epochs, two runs on the same questions, and the questions that flipped."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from app import accuracy_page, pieces, reports, search, store
from app.tab import LAST, QUIET, Tab
from app.theme import live, plot
from labkit import figures
from labkit.compare import chance as chance_of
from labkit.records import LabError

NO_SCORES = pieces.empty(
    "No evaluation is finished yet", "The first one comes before training; follow the run in the Runs tab."
)
CAPTION = (
    '<p class="caption">Share of all test questions; whiskers: Wilson\'s 95 % interval of the correct share. '
    "Unparsed and truncated "
    "answers count as wrong.</p>"
)
PICK = pieces.empty("Pick a question", "Its two answers show here, side by side.")


def build(runs_dir: Path, run: gr.Dropdown) -> Tab:
    """Lay the tab out and wire it."""
    current, page, entered = gr.State(""), gr.State(0), gr.State("")
    at = _layout()
    timer = gr.Timer(3, active=False)
    enter, moved = partial(_entered, runs_dir), partial(_stepped, runs_dir)

    def picked(event: gr.EventData, *values: Any) -> list[Any]:
        return moved(str(getattr(event, "pick", "")), *values)

    charts, view, flip = (
        [at.bars, at.numbers, at.curves],
        [at.a, at.b, at.direction],
        [at.listed, at.shown, current, page],
    )
    at.others.input(partial(_charted, runs_dir), [run, at.others], charts, **LAST)
    compared = partial(_compared, runs_dir, wanted="")
    gr.on([one.input for one in view], compared, view, [at.verdict, *flip], **LAST)
    at.listed.click(picked, [*view, current, page], flip, **LAST)
    at.back.click(partial(moved, "-"), [*view, current, page], flip, **LAST)
    at.on.click(partial(moved, "+"), [*view, current, page], flip, **LAST)
    reports.wire(at.report, partial(reports.of_pair, runs_dir), [at.a, at.b], at.told)
    inputs = [run, entered, at.others, at.a, at.b, current]
    outputs = [at.others, *charts, at.a, at.b, at.verdict, *flip, entered]
    timer.tick(lambda name, *values: enter(name, {}, *values), inputs, outputs, **QUIET)
    return Tab(enter, inputs, outputs, [timer])


def _layout() -> SimpleNamespace:
    """The widgets of the tab, by name."""
    others = gr.Dropdown([], value=[], multiselect=True, label="Runs beside the selected one")
    bars = plot("bars", 380, "outcomes per benchmark and run")
    numbers = live(elem_id="score-table")
    curves = plot("epoch-curves", 260, "accuracy over epochs")
    gr.HTML("<h2>Two runs on the same questions</h2>", js_on_load=None)
    kinds = list(accuracy_page.DIRECTIONS)
    with gr.Row(elem_classes="filters"):
        a = gr.Dropdown([], label="A")
        b = gr.Dropdown([], label="B")
        direction = gr.Dropdown(kinds, value=kinds[0], label="Flips shown")
        report = gr.Button("Report on A and B", size="sm", scale=0, min_width=160, elem_id="pair-report")
    told = live(elem_id="pair-told")
    verdict = live(elem_id="comparison")
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=280, elem_classes="list"):
            listed = live(elem_id="flip-list")
        with gr.Column(scale=12, min_width=380, elem_classes="main"):
            with gr.Row():
                back = gr.Button("‹ Previous (k)", size="sm", elem_classes="key-k")
                on = gr.Button("Next (j) ›", size="sm", elem_classes="key-j")
            shown = live(PICK, elem_id="flip-detail")
    return SimpleNamespace(
        others=others, bars=bars, numbers=numbers, curves=curves, a=a, b=b, direction=direction, report=report,
        told=told, verdict=verdict, listed=listed, back=back, on=on, shown=shown,
    )  # fmt: skip


def _entered(
    runs_dir: Path, name: str, params: dict[str, str], before: str, beside: list[str], *view: str
) -> list[Any]:
    """The whole tab for a run; nothing where it stands already and no run has new scores."""
    same = before.partition("|")[0] == name
    try:
        names = [other for other in store.folders(runs_dir) if other != name]
        stamp = f"{name}|" + store.stamp(*(store.folder(runs_dir, one) / "scores.jsonl" for one in [name, *names]))
        if stamp == before:
            return [gr.skip()] * 12
        mine = params if params.get("run", name) == name else {}
        asked = dict(zip(("a", "b", "flip"), view, strict=True)) if same else mine
        beside = [one for one in (beside if same else mine.get("with", "").split(",")) if one in names]
        points = accuracy_page.points(runs_dir)
        left, right = _points(name, [value for _, value in points], asked)
        drawn = _charts(runs_dir, name, beside) if left else ["", NO_SCORES, ""]
        paired = _compared(runs_dir, left, right, accuracy_page.DIRECTIONS[0], asked.get("flip", ""))
        chosen = gr.update(choices=points, value=left), gr.update(choices=points, value=right)
        return [gr.update(choices=names, value=beside), *drawn, *chosen, *paired, stamp]
    except LabError as error:
        return [gr.skip(), "", pieces.problem_of(error), "", gr.skip(), gr.skip(), "", "", PICK, "", 0, ""]


def _charted(runs_dir: Path, name: str, beside: list[str]) -> list[Any]:
    """Other runs beside the selected one."""
    try:
        return _charts(runs_dir, name, beside)
    except LabError as error:
        return ["", pieces.problem_of(error), ""]


def _stepped(runs_dir: Path, target: str, left: str, right: str, kind: str, now: str, at: int) -> list[Any]:
    """To a flip, to the next (`+`) or previous (`-`) one, or to another `page:N` of their list."""
    try:
        return _moved(runs_dir, (left, right), kind, now, at, target)
    except LabError as error:
        return [gr.skip(), pieces.problem_of(error), gr.skip(), gr.skip()]


def _points(name: str, known: list[str], asked: dict[str, str]) -> tuple[str | None, str | None]:
    """What is compared: what is asked for if it exists, else the run before training with the run at its last epoch."""
    own = [value for value in known if value.rpartition("@")[0] == name]
    left, right = (asked[key] if asked.get(key) in known else None for key in ("a", "b"))
    return left or (own[-1] if own else None), right or (own[0] if own else None)


def _charts(runs_dir: Path, name: str, beside: list[str]) -> list[str]:
    shown = accuracy_page.columns(runs_dir, name, beside)
    scores = {label: found for label, (_, found) in shown.items()}
    chance = {k: v for where, _ in shown.values() for k, v in chance_of(store.problems(where).values()).items()}
    bars = figures.accuracy_bars(scores, chance, accuracy_page.paper(shown))
    lines = {one: store.scores(store.folder(runs_dir, one)) for one in [name, *beside]}
    notes = CAPTION + accuracy_page.score_table(shown) + pieces.address(**{"with": ",".join(beside) or None})
    return [bars.to_json(), notes, figures.accuracy_curves(lines).to_json()]


def _compared(runs_dir: Path, a: str | None, b: str | None, kind: str, wanted: str) -> list[Any]:
    """Verdict, list of flips, one flip, its problem, and the page of the list."""
    if not a or not b:
        return ["", pieces.empty("Nothing to compare yet", "Two evaluations are needed."), PICK, "", 0]
    try:
        rows, flips = accuracy_page.compared(runs_dir, a, b)
        flips = accuracy_page.chosen(flips, kind)
        ids = [first.problem for first, _ in flips]
        pick = wanted if wanted in ids else search.neighbour(ids, "", 0)
        place = ids.index(pick) // accuracy_page.PAGE if pick else 0
        listed = accuracy_page.flip_list(_problems(runs_dir, a), flips, pick, place)
        return [accuracy_page.comparison(rows), listed, _flip(runs_dir, flips, pick, a, b), pick, place]
    except LabError as error:
        return [pieces.problem_of(error), "", PICK, "", 0]


def _problems(runs_dir: Path, point: str) -> dict[str, Any]:
    return store.problems(store.folder(runs_dir, point.rpartition("@")[0]))


def _flip(runs_dir: Path, flips: list[Any], pick: str, a: str, b: str) -> str:
    pair = next((pair for pair in flips if pair[0].problem == pick), None)
    if pair is None:
        return PICK + pieces.address(a=a, b=b, flip=None)
    notes = pieces.address(a=a, b=b, flip=pick) + pieces.mark("flip-list", pick)
    return accuracy_page.flip(_problems(runs_dir, a)[pick], *pair, a, b) + notes


def _moved(runs_dir: Path, points: tuple[str, str], kind: str, now: str, at: int, target: str) -> list[Any]:
    flips = accuracy_page.chosen(accuracy_page.compared(runs_dir, *points)[1], kind)
    ids = [first.problem for first, _ in flips]
    if target.startswith("page:") and target[5:].isdigit():
        place = min(int(target[5:]), max(0, len(ids) - 1) // accuracy_page.PAGE)
        return [accuracy_page.flip_list(_problems(runs_dir, points[0]), flips, now, place), gr.skip(), now, place]
    pick = target if target in ids else search.neighbour(ids, now, {"+": 1, "-": -1}.get(target, 0))
    if not pick or pick == now:
        return [gr.skip()] * 4
    place = ids.index(pick) // accuracy_page.PAGE
    listed = gr.skip() if place == at else accuracy_page.flip_list(_problems(runs_dir, points[0]), flips, pick, place)
    return [listed, _flip(runs_dir, flips, pick, *points), pick, place]
