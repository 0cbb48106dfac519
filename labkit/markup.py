"""Pieces of HTML for dashboard and report. Everything that a model, a file or a person wrote goes through `text`.

Model text is hostile until shown otherwise: it is escaped, and what could reorder or hide the words around it
(control and bidirectional characters) is written out by name.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from rapidfuzz.distance import LCSseq

from labkit.figures import SIGNS
from labkit.records import Problem

LONGEST = 200_000  # characters of one text that are shown; a browser chokes on megabytes in one line
LONG = 6000  # words of a side beyond which no differences are worked out
_VISIBLE = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)} | {
    code: f"[U+{code:04X}]"
    for code in (*range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
}


def text(value: Any) -> str:
    """Any text as inert HTML: escaped, control and bidi characters made visible, at most LONGEST characters."""
    raw = str(value)
    shown = raw[:LONGEST].translate(_VISIBLE)
    more = f" … ({len(raw) - LONGEST:,} more characters)" if len(raw) > LONGEST else ""
    return html.escape(shown.encode("utf-8", "replace").decode()) + more


def outcome(name: str) -> str:
    """Correct, wrong, unparsed, truncated: sign, word and colour."""
    return f'<span class="o {text(name)}"><span aria-hidden="true">{SIGNS.get(name, "")}</span>{text(name)}</span>'


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


def differences(first: str, second: str) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Character ranges of the words that only one of two texts has, in each of them; none for very long texts."""
    words = [list(re.finditer(r"\w+|[^\w\s]", one)) for one in (first, second)]
    if max(map(len, words)) > LONG:
        return [], []
    plain = [[word[0].lower() for word in side] for side in words]
    ranges: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    for tag, a, b, c, d in LCSseq.opcodes(*plain):  # difflib's time is cubic where a student repeats two words
        for side, (start, end) in enumerate(((a, b), (c, d))):
            if tag != "equal" and end > start:
                ranges[side].append((words[side][start].start(), words[side][end - 1].end()))
    return ranges


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


def number(value: float | None, digits: int = 3) -> str:
    """A number with a true minus sign, or a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def p_value(value: float) -> str:
    """A p-value as HTML."""
    return "&lt; .001" if value < 0.001 else f"{value:.3f}"


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
