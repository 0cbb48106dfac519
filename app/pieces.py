"""Small pieces of page as HTML text. Everything that a model, a file or a person wrote goes through `text`."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from labkit.figures import SIGNS
from labkit.records import Problem

STATES = {
    "done": "✓", "failed": "✗", "died": "✗", "damaged": "✗", "stopped": "■", "queued": "…", "ready": "○",
    "starting": "↻", "sampling": "▶", "training": "▶", "evaluating": "▶", "stopping": "■",
}  # fmt: skip
LONGEST = 200_000  # characters of one text that are shown; a browser chokes on megabytes in one line


def text(value: Any) -> str:
    """Any text as inert HTML: escaped, control characters made visible, at most LONGEST characters."""
    raw = str(value)
    shown = raw[:LONGEST].translate(_VISIBLE)
    more = f" … ({len(raw) - LONGEST:,} more characters)" if len(raw) > LONGEST else ""
    return html.escape(shown.encode("utf-8", "replace").decode()) + more


_VISIBLE = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)} | {127: "␡"}


def attribute(value: Any) -> str:
    """A JSON value for a data-attribute in single quotes."""
    return html.escape(json.dumps(value, ensure_ascii=True), quote=True)


def address(**params: Any) -> str:
    """An invisible note for the script: these parameters belong in the address now."""
    return f"<i hidden data-url='{attribute(params)}'></i>"


def mark(list_id: str, pick: str) -> str:
    """An invisible note for the script: this item of the list is the current one."""
    return f"<i hidden data-mark='{attribute([list_id, pick])}'></i>"


def outcome(name: str) -> str:
    """Correct, wrong, unparsed, truncated: sign, word and colour."""
    return f'<span class="o {text(name)}"><span aria-hidden="true">{SIGNS.get(name, "")}</span>{text(name)}</span>'


def state(name: str) -> str:
    """State of a run: sign, word and colour."""
    return (
        f'<span class="state {text(name)}"><span aria-hidden="true">{STATES.get(name, "·")}</span>{text(name)}</span>'
    )


def side(name: str, epoch: int | None = None) -> str:
    """Teacher or student, with the student's epoch."""
    when = "" if name == "teacher" or epoch is None else f", epoch {epoch}" if epoch else ", initial"
    return f'<span class="side {text(name)}">{text(name)}{when}</span>'


def spans(raw: str, marks: Sequence[tuple[int, int, str]]) -> str:
    """Text with some character ranges in `<mark class=...>`; ranges are ordered and do not overlap."""
    cuts = sorted({0, len(raw), *(place for start, end, _ in marks for place in (start, end))})
    kinds = {start: kind for start, end, kind in marks if end > start}
    ends = {start: end for start, end, _ in marks}
    parts, open_until = [], -1
    for start, end in pairwise([cut for cut in cuts if 0 <= cut <= len(raw)]):
        piece = text(raw[start:end])
        if start in kinds:
            parts.append(f'<mark class="{kinds[start]}">{piece}</mark>')
            open_until = ends[start]
        else:
            parts.append(piece if start >= open_until else f"<mark>{piece}</mark>")
    return "".join(parts)


def said(raw: str, span: tuple[int, int] | None) -> str:
    """What a model said, whole, with its answer highlighted."""
    marks = [(*span, "answer")] if span and 0 <= span[0] < span[1] <= len(raw) else []
    return f'<div class="said" dir="auto" tabindex="0" role="group" aria-label="text">{spans(raw, marks)}</div>'


def question(problem: Problem) -> str:
    """The question with its choices, the right one marked."""
    gold = problem.answer
    labels = problem.labels or ("",) * len(problem.choices)
    items = "".join(
        f"<li{' class=gold' if gold in (label, choice) else ''}>"
        f"{'✓ ' if gold in (label, choice) else ''}{text(f'{label}. ' if label else '')}{text(choice)}</li>"
        for label, choice in zip(labels, problem.choices, strict=False)
    )
    right = "" if problem.choices else f'<ul class="choices"><li class="gold">✓ {text(gold)}</li></ul>'
    return f'<div class="question" dir="auto">{text(problem.question)}</div>' + (
        f'<ul class="choices">{items}</ul>' if items else right
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "plain", last_is_total: bool = False) -> str:
    """A table of cells that are HTML already."""
    top = "".join(f'<th scope="col">{cell}</th>' if cell else "<td></td>" for cell in head)
    body = ""
    for number, row in enumerate(rows):
        total = ' class="total"' if last_is_total and number == len(rows) - 1 else ""
        body += f"<tr{total}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="table"><table class="{kind}"><thead><tr>'
        f"{top}</tr></thead><tbody>{body}</tbody></table></div>"
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


def number(value: float | None, digits: int = 3) -> str:
    """A number with a true minus sign, or a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def minutes(seconds: float) -> str:
    """A duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
