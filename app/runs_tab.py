"""Runs tab: start, follow, stop, continue, duplicate and delete runs; the queue; everything read from the folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from app import form, launcher, new_run, pieces, run_page, store
from app.tab import QUIET, Tab
from app.theme import live, plot
from labkit import figures, queueing, runs
from labkit.config import configure
from labkit.records import LabError

SIGN = "(...values) => lab.signed(...values)"


def build(runs_dir: Path, run: gr.Dropdown) -> Tab:
    """Lay the tab out."""
    seen, pending, token = gr.State({}), gr.State(""), gr.Textbox(visible=False)
    parts = new_run.build(runs_dir, pending)
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=280, elem_classes="list"):
            listed = live(elem_id="run-list")
        with gr.Column(scale=12, min_width=380, elem_classes="main"):
            head = live(elem_id="run-head", classes="panel")
            with gr.Row(visible=not launcher.demo_mode()):
                go = gr.Button("Start or resume", variant="primary", size="sm", elem_id="run-resume", interactive=False)
                halt = gr.Button("Stop", size="sm", elem_id="run-stop", interactive=False)
                again = gr.Button("Duplicate with these settings", size="sm", elem_id="run-duplicate")
                remove = gr.Button("Delete …", size="sm", elem_id="run-delete", interactive=False)
            with gr.Row(visible=False, elem_classes="ask") as asking:
                asked = live()
                yes = gr.Button("Delete for good", variant="stop", size="sm", elem_id="run-delete-yes")
                no = gr.Button("Keep it", size="sm")
            told = live(elem_id="run-told")
            curves = plot("curves", 460, "training curves")
            accuracy = plot("run-accuracy", 260, "accuracy over epochs")
            log = live(elem_id="run-log")
            with gr.Accordion("Settings of this run", open=False):
                settings = live(elem_id="run-settings")
    timer = gr.Timer(1, active=False)
    drawn = [listed, head, go, halt, remove, curves, accuracy, log, settings]

    def tick(name: str, expected: str, before: dict[str, Any]) -> list[Any]:
        names = store.folders(runs_dir)
        chosen, rest = gr.skip(), expected
        if expected and expected in names:
            name, chosen, rest = expected, gr.Dropdown(list(names), value=expected), ""
        values, after = _unchanged(_view(runs_dir, name), before)
        return [*values, after, chosen, rest]

    def enter(name: str, params: dict[str, str], before: dict[str, Any]) -> list[Any]:
        values, after = _unchanged(_view(runs_dir, name), before)
        fresh = [gr.skip() if before else form.fresh("run", set(store.folders(runs_dir)))] if parts else []
        return [*values, after, *fresh]

    def act(change: Callable[[str], Any], done: str) -> Callable[[str, str], list[Any]]:
        def acted(name: str, signature: str) -> list[Any]:
            try:
                new_run.require(signature)
                change(name)
            except LabError as error:
                return [pieces.problem_of(error), gr.Row(visible=False)]
            return [f'<div class="good"><b>✓</b> {pieces.text(name)}: {done}</div>', gr.Row(visible=False)]

        return acted

    def ask(name: str) -> list[Any]:
        size = launcher.size(store.folder(runs_dir, name)) / 1e6
        question = (
            f"Delete <b>{pieces.text(name)}</b> with its {size:.1f} MB of traces, answers and weights? There is "
            "no way back."
        )
        return [question, gr.Row(visible=True)]

    def duplicated(name: str) -> list[Any]:
        config = store.config(store.folder(runs_dir, name))
        return new_run.refill(parts, runs_dir, config, form.fresh(name, set(store.folders(runs_dir))))

    def picked(event: gr.EventData, signature: str) -> list[Any]:
        verb, _, name = str(getattr(event, "pick", "")).partition(":")
        skipped = [gr.skip()] * (3 + len(form.FIELDS) if parts else 0)
        names = store.folders(runs_dir)
        if verb == "run":
            return [gr.Dropdown(list(names), value=name) if name in names else gr.skip(), "", *skipped]
        try:
            new_run.require(signature)
            if verb == "mend":
                config = configure(launcher.draft_settings(runs_dir, name))
                launcher.dismiss(runs_dir, name)
                return [gr.skip(), "", *new_run.refill(parts, runs_dir, config, name)]
            _queue(runs_dir, verb, name)
        except LabError as error:
            return [gr.skip(), pieces.problem_of(error), *skipped]
        return [gr.skip(), "", *skipped]

    filled = [parts["folded"], parts["recipe"], parts["name"], *parts["fields"]] if parts else []
    timer.tick(tick, [run, pending, seen], [*drawn, seen, run, pending], **QUIET)
    listed.click(picked, token, [run, told, *filled], js=SIGN, **QUIET)
    for button, change, done in (
        (go, lambda name: launcher.resume(runs_dir, name), "starts, or waits its turn in the queue."),
        (halt, lambda name: launcher.stop(runs_dir, name), "saves and stops after the step in hand."),
        (yes, lambda name: launcher.delete(runs_dir, name), "is deleted."),
    ):
        button.click(act(change, done), [run, token], [told, asking], js=SIGN, **QUIET).then(
            tick, [run, pending, seen], [*drawn, seen, run, pending], **QUIET
        )
    remove.click(ask, run, [asked, asking], **QUIET)
    no.click(lambda: gr.Row(visible=False), None, asking, **QUIET)
    if parts:
        again.click(duplicated, run, filled, **QUIET)
    name_box = [parts["name"]] if parts else []
    return Tab(enter, [run, seen], [*drawn, seen, *name_box], [timer])


def _queue(runs_dir: Path, verb: str, name: str) -> None:
    """What the small buttons of the list do."""
    if verb == "wake":
        queueing.wake(runs_dir)
    elif verb == "dismiss":
        launcher.dismiss(runs_dir, name)
    elif verb == "cancel":
        launcher.stop(runs_dir, name)
    elif verb in {"earlier", "later"}:
        launcher.move(runs_dir, name, -1 if verb == "earlier" else 1)


def _view(runs_dir: Path, name: str | None) -> dict[str, tuple[Any, Callable[[], Any]]]:
    """For each part of the tab: what decides whether it has changed, and how it is drawn."""
    listed = run_page.listing(runs_dir, name)
    try:
        where = store.folder(runs_dir, name or "")
        config = store.config(where)
        state = launcher.state(runs_dir, where.name, queueing.read(runs_dir))
    except LabError as error:
        return _nothing(listed, error)
    own = where.parent == runs_dir
    head = run_page.head(runs_dir, where.name)
    verb = "Resume" if state in ("stopped", "failed", "died") else "Start"
    can_go, can_stop = (
        own and state in ("stopped", "failed", "died", "ready"),
        own and state in (*runs.LIVE, "queued", "starting"),
    )
    can_remove = own and state not in (*runs.LIVE, "stopping", "starting")
    scores = store.stamp(where / "scores.jsonl")
    return {
        "list": (listed, lambda: listed),
        "head": (head, lambda: head),
        "go": ((verb, can_go), lambda: gr.Button(verb, interactive=can_go)),
        "halt": (can_stop, lambda: gr.Button(interactive=can_stop)),
        "remove": (can_remove, lambda: gr.Button(interactive=can_remove)),
        "curves": (where.name + store.stamp(where / "metrics.jsonl"), lambda: _curves(where)),
        "accuracy": (where.name + scores, lambda: _accuracy(where)),
        "log": (where.name + store.stamp(where / "log.txt"), lambda: run_page.log(where)),
        "settings": (where.name, lambda: run_page.settings(config)),
    }


def _nothing(listed: str, error: LabError) -> dict[str, tuple[Any, Callable[[], Any]]]:
    off = ("", lambda: gr.Button(interactive=False))
    blank = ("", lambda: "")
    return {
        "list": (listed, lambda: listed), "head": (str(error), lambda: pieces.problem_of(error)), "go": off,
        "halt": off,
        "remove": off, "curves": blank, "accuracy": blank, "log": blank, "settings": blank,
    }  # fmt: skip


def _unchanged(
    view: dict[str, tuple[Any, Callable[[], Any]]], before: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The parts as outputs, skipping those whose mark is the same as before; and the marks."""
    marks = {part: mark for part, (mark, _) in view.items()}
    return [gr.skip() if before.get(part, ...) == marks[part] else draw() for part, (_, draw) in view.items()], marks


def _curves(where: Path) -> str:
    metrics = store.metrics(where)
    return figures.training_curves(metrics, where.name).to_json() if metrics else ""


def _accuracy(where: Path) -> str:
    scores = store.scores(where)
    return figures.accuracy_curves({where.name: scores}).to_json() if scores else ""
