"""Small pieces of page as HTML text. Everything that a model, a file or a person wrote goes through `text`."""

from __future__ import annotations

import html
import json
from typing import Any

from labkit.markup import SIGNS, number, outcome, question, said, side, spans, table, text

__all__ = [
    "SIGNS",
    "number",
    "outcome",
    "question",
    "said",
    "side",
    "spans",
    "table",
    "text",
]  # what the report has too

STATES = {
    "done": "✓", "failed": "✗", "died": "✗", "damaged": "✗", "stopped": "■", "queued": "…", "ready": "○",
    "starting": "↻", "sampling": "▶", "training": "▶", "evaluating": "▶", "stopping": "■",
}  # fmt: skip


def attribute(value: Any) -> str:
    """A JSON value for a data-attribute in single quotes."""
    return html.escape(json.dumps(value, ensure_ascii=True), quote=True)


def address(**params: Any) -> str:
    """An invisible note for the script: these parameters belong in the address now."""
    return f"<i hidden data-url='{attribute(params)}'></i>"


def mark(list_id: str, pick: str) -> str:
    """An invisible note for the script: this item of the list is the current one."""
    return f"<i hidden data-mark='{attribute([list_id, pick])}'></i>"


def state(name: str) -> str:
    """State of a run: sign, word and colour."""
    return (
        f'<span class="state {text(name)}"><span aria-hidden="true">{STATES.get(name, "·")}</span>{text(name)}</span>'
    )


def empty(title: str, hint: str) -> str:
    """Nothing to see, said kindly: what is missing and what to do. `title` and `hint` are HTML."""
    return f'<div class="empty"><b>{title}</b>{hint}</div>'


def problem_of(message: Any) -> str:
    """An error in one line."""
    return f'<div class="trouble" role="alert"><b>✗</b> {text(message)}</div>'


def facts(**values: Any) -> str:
    """A line of `name value` facts; None is left out."""
    parts = [f"<span>{text(k.replace('_', ' '))} <b>{text(v)}</b></span>" for k, v in values.items() if v is not None]
    return f'<div class="facts">{"".join(parts)}</div>'


def minutes(seconds: float) -> str:
    """A duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def item(pick: str, where: str, note: str, what: str, more: str = "") -> str:
    """An entry of a list, to be picked; `pick` and `what` are plain text, the rest is HTML."""
    return (
        f'<button class="item" data-pick="{text(pick)}"><span class="where"><span>{where}</span><span>{note}</span>'
        f'</span><span class="what">{text(what[:240])}</span>{more}</button>'
    )


def paged(label: str, items: str, told: str, page: int, last: int, marked: tuple[str, str]) -> str:
    """A page of a list with the way to its neighbours; `marked` is (id of the list, what is current in it)."""
    off = ("disabled" if page <= 0 else ""), ("disabled" if page >= last else "")
    return (
        f'<div class="scroller" tabindex="0" role="group" aria-label="{label}">{items}</div><div class="pager">'
        f'<button data-pick="page:{page - 1}" {off[0]}>‹ Back</button><span>{told} · page {page + 1} of {last + 1}'
        f'</span><button data-pick="page:{page + 1}" {off[1]}>More ›</button></div>{mark(*marked)}'
    )
