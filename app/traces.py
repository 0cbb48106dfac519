"""Traces tab: find problems, read one problem's traces side by side, see how different they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from app import indexed, pieces, search, store, trace_page, workbench
from app.search import ALL, ORDERS, Query
from app.tab import LAST, Tab
from app.theme import live, plot
from labkit import figures
from labkit.records import LabError

NO_TRACES = pieces.empty(
    "No traces in this run yet",
    "They appear as soon as the first questions are sampled; follow the run in the Runs tab.",
)

NO_MATCH = pieces.empty("Nothing to show", "No problem matches the filters above.")


def build(runs_dir: Path, run: gr.Dropdown) -> Tab:
    """Lay the tab out."""
    current, page, entered = gr.State(""), gr.State(0), gr.State("")
    with gr.Row(elem_classes="filters"):
        q = gr.Textbox(label="Search in texts  ( / )", placeholder="words or an id", elem_classes="key-search", scale=2)
        benchmark = gr.Dropdown([ALL], value=ALL, label="Benchmark")
        outcome = gr.Dropdown([ALL], value=ALL, label="Outcome")
        side = gr.Dropdown([ALL], value=ALL, label="Side")
        epoch = gr.Dropdown([ALL], value=ALL, label="Epoch")
        model = gr.Dropdown([ALL], value=ALL, label="Model")
        order = gr.Dropdown(list(ORDERS), value=ORDERS[0], label="Order")
    filters = [q, benchmark, outcome, side, epoch, model, order]
    with gr.Accordion("Extractor workbench: what would be read from a completion?", open=False):
        workbench.build(runs_dir, run, current)
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=3, min_width=250, elem_classes="list"):
            listed = live(elem_id="trace-list")
        with gr.Column(scale=8, min_width=380, elem_classes="main"):
            with gr.Row():
                back = gr.Button("‹ Previous (k)", size="sm", elem_classes="key-k")
                on = gr.Button("Next (j) ›", size="sm", elem_classes="key-j")
            shown = live(NO_TRACES, elem_id="trace-detail")
        with gr.Column(scale=5, min_width=330, elem_classes="aside"):
            panel = live(elem_id="trace-diversity")
            rates = plot("solve-rates", 220, "solve rates")
            told = live()
            passes = plot("pass-at-k", 220, "pass at k")

    def enter(name: str, params: dict[str, str], before: str, now: str, *values: str) -> list[Any]:
        same = before.partition("|")[0] == name
        try:
            where = store.folder(runs_dir, name)
            stamp = f"{name}|" + store.stamp(*(where / "traces").glob("*.jsonl"))
            if stamp == before:
                return [gr.skip()] * 16
            offered = search.choices(where)
            mine = params if params.get("run", name) == name else {}
            asked = {**dict(zip(FIELDS, values, strict=True)), "problem": now} if same else mine
            query = _restored(asked, offered)
            widgets = [query.q, *(gr.update(choices=offered[f], value=getattr(query, f)) for f in FIELDS[1:])]
            return [*widgets, *_opened(where, asked.get("problem", ""), query), *_charts(where), stamp]
        except LabError as error:
            return [*[gr.skip()] * 7, "", pieces.problem_of(error), "", "", 0, "", "", "", ""]

    def filtered(name: str, now: str, *values: str) -> list[Any]:
        return _guarded(lambda where: _filtered(where, now, Query(*values)), runs_dir, name, 5)

    def picked(event: gr.EventData, name: str, now: str, *values: str) -> list[Any]:
        pick = str(getattr(event, "pick", ""))
        return _guarded(lambda where: _picked(where, pick, now, Query(*values)), runs_dir, name, 5)

    def step(by: int) -> Callable[..., list[Any]]:
        def go(name: str, now: str, *values: str) -> list[Any]:
            return _guarded(lambda where: _stepped(where, now, by, Query(*values)), runs_dir, name, 5)

        return go

    outputs = [listed, shown, panel, current, page]
    gr.on([q.input, *(one.input for one in filters[1:])], filtered, [run, current, *filters], outputs, **LAST)
    listed.click(picked, [run, current, *filters], outputs, **LAST)
    back.click(step(-1), [run, current, *filters], outputs, **LAST)
    on.click(step(1), [run, current, *filters], outputs, **LAST)
    opening = [*filters, *outputs, rates, told, passes, entered]
    return Tab(enter, [run, entered, current, *filters], opening)


FIELDS = ("q", "benchmark", "outcome", "side", "epoch", "model", "order")


def _restored(params: dict[str, str], offered: dict[str, list[str]]) -> Query:
    """The view that the address asks for, as far as this run has it."""
    known = {f: params[f] for f in FIELDS[1:] if params.get(f) in offered[f]}
    return Query(q=params.get("q", "")[:200], **known)


def _guarded(view: Callable[[Path], list[Any]], runs_dir: Path, name: str, outputs: int) -> list[Any]:
    try:
        return view(store.folder(runs_dir, name))
    except LabError as error:
        return [gr.skip(), pieces.problem_of(error), *[gr.skip()] * (outputs - 2)]


def _opened(where: Path, wanted: str, query: Query) -> list[Any]:
    """The list, and the problem asked for if the run has it, even where the filters leave it out."""
    found = search.find(where, query)
    pick = wanted if wanted in store.problems(where) else search.neighbour(found.problems, "", 0)
    at = found.problems.index(pick) // trace_page.PAGE if pick in found.problems else 0
    return [trace_page.listing(where, found, pick, at), *_shown(where, pick, query), pick, at]


def _filtered(where: Path, now: str, query: Query) -> list[Any]:
    return _opened(where, now if now in search.find(where, query).problems else "", query)


def _picked(where: Path, pick: str, now: str, query: Query) -> list[Any]:
    found = search.find(where, query)
    if pick.startswith("page:") and pick[5:].isdigit():
        at = min(int(pick[5:]), max(0, len(found.problems) - 1) // trace_page.PAGE)
        return [trace_page.listing(where, found, now, at), gr.skip(), gr.skip(), now, at]
    if pick not in store.problems(where):
        return [gr.skip()] * 5
    return [gr.skip(), *_shown(where, pick, query), pick, gr.skip()]


def _stepped(where: Path, now: str, by: int, query: Query) -> list[Any]:
    found = search.find(where, query)
    pick = search.neighbour(found.problems, now, by)
    if pick == now or not pick:
        return [gr.skip()] * 5
    before = found.problems.index(now) // trace_page.PAGE if now in found.problems else -1
    at = found.problems.index(pick) // trace_page.PAGE
    listed = trace_page.listing(where, found, pick, at) if at != before else gr.skip()
    return [listed, *_shown(where, pick, query), pick, at]


def _shown(where: Path, pick: str, query: Query) -> list[str]:
    """Detail and diversity panel of one problem; the address then says all that makes the view."""
    defaults = Query()
    params = {f: v if (v := getattr(query, f)) != getattr(defaults, f) else None for f in FIELDS}
    if not pick:
        nothing = NO_MATCH if indexed.traces(where) else NO_TRACES
        return [nothing + pieces.address(problem=None, **params), ""]
    config = store.config(where)
    traces = indexed.traces_of(where, pick)
    body = trace_page.detail(store.problems(where)[pick], traces, query, config)
    notes = pieces.address(run=where.name, problem=pick, **params) + pieces.mark("trace-list", pick)
    return [body + notes, trace_page.panel(traces, config.rouge_threshold)]


def _charts(where: Path) -> list[str]:
    """Solve-rate histogram, a sentence, and the pass@k curve, over all problems of the run."""
    k = store.config(where).k
    draws = search.first_draws(where, k)
    if not draws:
        return ["", "", ""]
    rates = {label: [c / n for n, c in cases] for label, cases in draws.items()}
    bars, curve = figures.solve_rates(rates), figures.pass_curve(draws, most=k)
    told = f'<p class="caption">All problems, first {k} draws of each. {pieces.text(bars.layout.meta["alt"])}.</p>'
    return [bars.to_json(), told, curve.to_json()]
