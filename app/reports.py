"""The Report buttons: a run, or two evaluations, as the one HTML file of `labkit report`, saved by the browser.

The document comes as the answer of an ordinary event, so whoever may see the page, and nobody else, may have it: no
address and no file on the server is opened for it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from app import pieces, store
from app.tab import QUIET
from labkit import report
from labkit.records import LabError

Made = tuple[str, str]  # file name, document


def wire(button: gr.Button, make: Callable[..., Made], inputs: list[Any], told: gr.HTML) -> None:
    """A click makes the report of the inputs' values and saves it; `told` says so, or why not."""
    name, document = gr.Textbox(visible=False), gr.Textbox(visible=False)

    def made(*values: Any) -> list[Any]:
        try:
            file, text = make(*values)
        except LabError as error:
            return [pieces.problem_of(error), "", ""]
        size = f"{len(text.encode()) / 1e6:.1f} MB"
        saved = (
            f"<b>✓</b> {pieces.text(file)} ({size}) is in your downloads: it opens offline, prints, and is complete."
        )
        return [f'<div class="good">{saved}</div>', file, text]

    waiting = button.click(lambda: '<p class="note">Writing the report …</p>', None, told, **QUIET)
    ready = waiting.then(made, inputs, [told, name, document], **QUIET)
    ready.then(None, [name, document], [name, document], js="(name, text) => lab.save(name, text)")


def of_run(runs_dir: Path, name: str) -> Made:
    """The report of one run; raises `LabError` if it has no scores yet."""
    where = store.folder(runs_dir, name)
    return f"report-{where.name}.html", report.of_run(where)


def of_pair(runs_dir: Path, first: str, second: str) -> Made:
    """The report of two points NAME@EPOCH on the same questions."""
    sides = [_side(runs_dir, point) for point in (first, second)]
    file = "-".join(f"{where.name}-epoch-{epoch}" for where, epoch in sides)
    return f"report-{file}.html", report.of_pair(*sides)


def _side(runs_dir: Path, point: str | None) -> tuple[Path, int]:
    name, _, epoch = (point or "").rpartition("@")
    if not epoch.isdigit():
        raise LabError("choose two evaluations, A and B, first")
    return store.folder(runs_dir, name), int(epoch)
