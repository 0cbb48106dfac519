"""Pairs tab: chosen beside rejected, where each came from, token by token, and the mixed policy over epochs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from app import guard, indexed, pair_page, pieces, search, store, tokens
from app.tab import LAST, QUIET, Tab
from app.theme import live, plot
from labkit import figures, report_tables
from labkit.records import LabError

NO_PAIRS = pieces.empty(
    "No pairs in this run yet", "They are made after sampling, at the start of each epoch. Zero-shot runs have none."
)
HINT = (
    '<p class="caption">Colours every token by the student\'s log-probability and writes the loss out in numbers.</p>'
)
MODELS = [("newest student of the run", "current"), ("initial student", "initial")]


def build(runs_dir: Path, run: gr.Dropdown) -> Tab:
    """Lay the tab out and wire it."""
    current, page, entered = gr.State(-1), gr.State(0), gr.State("")
    at = _layout()
    poll, token = gr.Timer(0.7, active=False), gr.Textbox(visible=False)
    outputs = [at.listed, at.shown, at.coloured, current, page]
    view = [run, at.q, at.epoch, at.source, at.which]
    moved = partial(_moved, runs_dir)

    def picked(event: gr.EventData, *values: Any) -> list[Any]:
        return moved(str(getattr(event, "pick", "")), *values)

    gr.on([at.q.input, at.epoch.input, at.source.input], partial(_changed, runs_dir), view, outputs, **LAST)
    at.listed.click(picked, [*view, current], outputs, **LAST)
    at.back.click(partial(moved, "-"), [*view, current], outputs, **LAST)
    at.on.click(partial(moved, "+"), [*view, current], outputs, **LAST)
    asked, answer = [run, at.epoch, current, at.which], [at.coloured, poll]
    ordered, sign = partial(_asked_for_tokens, runs_dir), "(...values) => lab.signed(...values)"
    gr.on([at.view.click, at.which.input], ordered, [*asked, token], answer, js=sign, **LAST)
    poll.tick(partial(_looked_for_tokens, runs_dir), asked, answer, **QUIET)
    drawn = [at.q, at.epoch, *outputs, at.policy, at.told, entered]
    return Tab(partial(_entered, runs_dir), [run, entered, at.epoch, current], drawn)


def _layout() -> SimpleNamespace:
    """The widgets of the tab, by name."""
    with gr.Row(elem_classes="filters"):
        q = gr.Textbox(
            label="Search in both sides  ( / )", placeholder="words or an id", elem_classes="key-search", scale=2
        )
        epoch = gr.Dropdown([], label="Epoch that trains on it")
        source = gr.Dropdown(list(pair_page.SOURCES), value=pair_page.SOURCES[0], label="Rejected side from")
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=3, min_width=250, elem_classes="list"):
            listed = live(elem_id="pair-list")
        with gr.Column(scale=13, min_width=380, elem_classes="main"):
            with gr.Row():
                back = gr.Button("‹ Previous (k)", size="sm", elem_classes="key-k")
                on = gr.Button("Next (j) ›", size="sm", elem_classes="key-j")
            shown = live(NO_PAIRS, elem_id="pair-detail")
            with gr.Row():
                which = gr.Radio(MODELS, value="current", label="Whose log-probabilities", scale=3)
                view = gr.Button("Token view", variant="primary", scale=1, elem_id="token-view")
            coloured = live(HINT, elem_id="tokens")
            policy = plot("policy", 300, "mixed policy by epoch")
            told = live()
    return SimpleNamespace(
        q=q, epoch=epoch, source=source, listed=listed, back=back, on=on, shown=shown, which=which, view=view,
        coloured=coloured, policy=policy, told=told,
    )  # fmt: skip


def _entered(runs_dir: Path, name: str, params: dict[str, str], before: str, at: int | None, now: int) -> list[Any]:
    """The whole tab for a run; nothing where it stands already and its triplets have not changed."""
    same = before.partition("|")[0] == name
    try:
        where = store.folder(runs_dir, name)
        stamp = f"{name}|" + store.stamp(*(where / "triplets").glob("*.jsonl"))
        if stamp == before:
            return [gr.skip()] * 10
        offered = indexed.epochs(where)
        if not offered:
            return ["", gr.update(choices=[], value=None), "", NO_PAIRS, HINT, -1, 0, "", "", stamp]
        mine = params if params.get("run", name) == name else {}
        asked = {"pair": f"{at}-{now}"} if same and at else mine
        at, line, word = _restored(where, asked, offered)
        epochs = gr.update(choices=[(f"epoch {e}", e) for e in offered], value=at)
        return [word, epochs, *_opened(where, at, line, word), *_policy(where), stamp]
    except LabError as error:
        return ["", gr.skip(), "", pieces.problem_of(error), "", -1, 0, "", "", ""]


def _changed(runs_dir: Path, name: str, word: str, at: int | None, kind: str, model: str) -> list[Any]:
    """Another filter: the list and its first pair."""
    try:
        where = store.folder(runs_dir, name)
        lines = pair_page.choose(where, int(at or 1), kind, word)
        line = lines[0] if lines else -1
        listed = pair_page.listing(where, int(at or 1), lines, line, 0)
        return [listed, *_pair(where, int(at or 1), line, model), line, 0]
    except LabError as error:
        return [gr.skip(), pieces.problem_of(error), *[gr.skip()] * 3]


def _moved(
    runs_dir: Path, target: str, name: str, word: str, at: int | None, kind: str, model: str, now: int
) -> list[Any]:
    """To a line, to the next (`+`) or previous (`-`) pair, or to another `page:N` of the list."""
    where = store.folder(runs_dir, name)
    at = int(at or 1)
    lines = pair_page.choose(where, at, kind, word)
    if target.startswith("page:") and target[5:].isdigit():
        place = min(int(target[5:]), max(0, len(lines) - 1) // pair_page.PAGE)
        return [pair_page.listing(where, at, lines, now, place), *[gr.skip()] * 3, place]
    line = search.neighbour([str(one) for one in lines], str(now), {"+": 1, "-": -1}.get(target, 0))
    line = target if target.isdigit() and int(target) < len(indexed.triplets(where, at)) else line
    if not line or int(line) == now:
        return [gr.skip()] * 5
    place = lines.index(int(line)) // pair_page.PAGE if int(line) in lines else 0
    listed = gr.skip() if target.isdigit() else pair_page.listing(where, at, lines, int(line), place)
    return [listed, *_pair(where, at, int(line), model), int(line), place]


def _asked_for_tokens(runs_dir: Path, name: str, at: int | None, line: int, model: str, signature: str) -> list[Any]:
    """The token view if it is known; else it is ordered, and the timer waits for it."""
    try:
        if not guard.allowed(signature):  # what is ordered is a process
            raise LabError("this page is older than the server: reload it")
        where = store.folder(runs_dir, name)
        if line < 0:
            return [NO_PAIRS, gr.update(active=False)]
        if found := tokens.result(where, model, int(at or 1), line):
            return [tokens.page(found), gr.update(active=False)]
        tokens.ask(where, model, int(at or 1), line)
        return [tokens.waiting(where, model), gr.update(active=True)]
    except LabError as error:
        return [pieces.problem_of(error), gr.update(active=False)]


def _looked_for_tokens(runs_dir: Path, name: str, at: int | None, line: int, model: str) -> list[Any]:
    """A tick of the timer: the ordered token view, or why it failed."""
    try:
        where = store.folder(runs_dir, name)
        if found := tokens.result(where, model, int(at or 1), line):
            return [tokens.page(found), gr.update(active=False)]
        failed = tokens.failure(where, model)
        return [pieces.problem_of(failed), gr.update(active=False)] if failed else [gr.skip(), gr.skip()]
    except LabError as error:
        return [pieces.problem_of(error), gr.update(active=False)]


def _restored(where: Path, params: dict[str, str], offered: list[int]) -> tuple[int, int, str]:
    """Epoch, line and search words that the address asks for (`pair=EPOCH-LINE`), as far as the run has them."""
    epoch, _, line = params.get("pair", "").partition("-")
    at = int(epoch) if epoch.isdigit() and int(epoch) in offered else offered[-1]
    known = line.isdigit() and int(line) < len(indexed.triplets(where, at))
    return at, int(line) if known else 0, params.get("pq", "")[:200]


def _opened(where: Path, epoch: int, line: int, word: str) -> list[Any]:
    lines = pair_page.choose(where, epoch, pair_page.SOURCES[0], word)
    place = lines.index(line) // pair_page.PAGE if line in lines else 0
    return [pair_page.listing(where, epoch, lines, line, place), *_pair(where, epoch, line, "current"), line, place]


def _policy(where: Path) -> list[str]:
    """The chart of the mixed policy, and its table."""
    rows = pair_page.policy_rows(where)
    return [figures.policy_bars(rows).to_json(), report_tables.policy(rows)]


def _pair(where: Path, epoch: int, line: int, model: str) -> list[Any]:
    if line < 0:
        return [NO_PAIRS, ""]
    return [_shown(where, epoch, line), _known(where, model, epoch, line)]


def _shown(where: Path, epoch: int, line: int) -> str:
    notes = pieces.address(run=where.name, pair=f"{epoch}-{line}") + pieces.mark("pair-list", str(line))
    return pair_page.detail(where, epoch, line) + notes


def _known(where: Path, model: str, epoch: int, line: int) -> str:
    """The token view if it was worked out before, else how to get it."""
    try:
        found = tokens.result(where, model, epoch, line)
    except LabError:
        return HINT
    return tokens.page(found) if found else HINT
