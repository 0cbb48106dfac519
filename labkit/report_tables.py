"""Scores, comparisons and the mixed policy as HTML tables, the same in the dashboard and in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labkit.compare import Comparison, points
from labkit.figures import SIGNS, percent
from labkit.markup import p_value, table, text
from labkit.records import OUTCOMES, Score


def scores(
    shown: Mapping[str, Sequence[Score]],
    chance: Mapping[str, float] | None = None,
    paper: Mapping[tuple[str, str], float] | None = None,
) -> str:
    """Label -> scores of one epoch, as counts, accuracy and Wilson's interval; the mean weighs benchmarks equally.

    `chance`: benchmark -> accuracy of guessing; `paper`: (label, benchmark) -> published accuracy; all fractions. Their
    columns are left out where they say nothing.
    """
    more = {"guessing": bool(chance), "paper": bool(paper)}
    rows = []
    for label, found in shown.items():
        for one in found:
            counts = [f"{getattr(one, name):,}" for name in (*OUTCOMES, "total")]
            strict = percent(one.strict_correct / max(one.total, 1))
            row = [text(label), text(one.benchmark), *counts, f"<b>{percent(one.accuracy)}</b>", _span(one), strict]
            beside = {"guessing": (chance or {}).get(one.benchmark), "paper": (paper or {}).get((label, one.benchmark))}
            rows.append(row + ["" if beside[k] is None else percent(beside[k]) for k, on in more.items() if on])
        mean = sum(one.accuracy for one in found) / max(len(found), 1)
        blank = [""] * (2 + sum(more.values()))
        rows.append([text(label), "<b>mean</b>", *[""] * 5, f"<b>{percent(mean)}</b>", *blank])
    signs = [f"{SIGNS[name]} {name}" for name in OUTCOMES]
    head = ["run", "benchmark", *signs, "total", "accuracy", "95 %", "by strict rules", *(k for k in more if more[k])]
    return table(head, rows, "plain scores")


def _span(one: Score) -> str:
    return f"{100 * one.low:.1f} – {100 * one.high:.1f}"


def comparison(rows: Sequence[Comparison], first: str = "A", second: str = "B") -> str:
    """Two runs on the same questions, a row per benchmark; the last of several is their mean."""
    head = ["benchmark", "questions", first, second, f"{second} − {first}", "95 % (paired bootstrap)",
            f"only {first} right", f"only {second} right", "p (exact McNemar)", "p (Holm)"]  # fmt: skip
    cells = [
        [
            text(row.benchmark), f"{row.questions:,}", percent(row.first), percent(row.second), points(row.difference),
            f"{points(row.low)} … {points(row.high)}", str(row.only_first), str(row.only_second), p_value(row.p),
            "" if row.p_holm is None else p_value(row.p_holm),
        ]
        for row in rows
    ]  # fmt: skip
    return table(head, cells, last_is_total=len(rows) > 1)


def policy(rows: Sequence[Mapping[str, float]]) -> str:
    """The rows of `figures.policy_bars` in numbers."""
    head = ["epoch", "initial mistakes", "newest mistakes", "share refreshed", "without", "near-copies dropped",
            "prompts out of wrong answers"]  # fmt: skip
    cells = []
    for row in rows:
        paired = row["initial"] + row["fresh"]
        share = f"{row['fresh'] / paired:.0%}" if paired else "–"
        first, last = ("epoch", "initial", "fresh"), ("without_negative", "near_copies", "empty")
        cells.append([*(f"{row[name]}" for name in first), share, *(f"{row[name]}" for name in last)])
    return table(head, cells)
