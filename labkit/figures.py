"""Records as plotly figures, for notebooks, dashboard and report alike: pure functions, readable on light and dark.

Colours are Okabe and Ito's, chosen for colour-blind readers, and never stand alone: patterns, markers and dashes repeat
what they say. `layout.meta.alt` holds a sentence for those who do not see the picture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from labkit.diversity import pass_at_k
from labkit.records import OUTCOMES, Score

COLOURS = {"correct": "#009E73", "wrong": "#D55E00", "unparsed": "#CC79A7", "truncated": "#E69F00"}
SIGNS = {"correct": "✓", "wrong": "✗", "unparsed": "?", "truncated": "✂"}
PATTERNS = {"correct": "", "wrong": "/", "unparsed": ".", "truncated": "x"}
SIDES = {"teacher": "#3B8FD0", "student": "#9B7BE0"}
LINES = ("#3B8FD0", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#9B7BE0", "#56B4E9", "#A8A800")
MARKERS = ("circle", "diamond", "square", "triangle-up", "x", "star", "cross", "triangle-down")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash")
GRID = "rgba(128,128,128,0.25)"
FONT = "IBM Plex Sans, system-ui, sans-serif"


def inert(value: Any) -> Any:
    """Names as plotly draws them: it takes `<a href=...>` in any text for a link, so a `<` becomes a mark like it."""
    if isinstance(value, str):
        return re.sub(r"<(?!/?(?:b|br|i|sub|sup)>)", "\u2039", value)
    words = isinstance(value, np.ndarray) and value.dtype.kind in "OU"
    return [inert(one) for one in value] if words or isinstance(value, list | tuple) else value


def styled(figure: go.Figure, alt: str, height: int, **layout: Any) -> go.Figure:
    """A figure in the lab's looks: transparent, no template, its sentence in `layout.meta.alt`."""
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 12, "color": "#71717a"},
        height=height,
        margin={"l": 48, "r": 12, "t": 12, "b": 40},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        meta={"alt": alt},
        hoverlabel={"font": {"family": FONT}},
    )
    figure.update_layout(layout)
    figure.for_each_trace(
        lambda trace: trace.update({key: inert(trace[key]) for key in ("name", "legendgroup", "x", "y")})
    )
    figure.for_each_annotation(lambda title: title.update(text=inert(title.text)))
    figure.update_annotations(font_size=12)  # titles of panels: at their usual 16 they run into each other
    figure.update_xaxes(gridcolor=GRID, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, automargin=True)
    return figure


def percent(value: float) -> str:
    """A fraction as a percentage with one decimal."""
    return f"{100 * value:.1f} %"


def accuracy_bars(
    runs: Mapping[str, Sequence[Score]], chance: Mapping[str, float], paper: Mapping[tuple[str, str], float]
) -> go.Figure:
    """Stacked outcome shares per benchmark and run, with Wilson's 95 % interval of the correct share.

    `runs`: label -> scores of one epoch. `chance`: benchmark -> accuracy of guessing. `paper`: (label, benchmark) ->
    the published accuracy; all fractions.
    """
    cells = [(score, label) for label, scores in runs.items() for score in scores]
    order = list(dict.fromkeys(score.benchmark for score, _ in cells))
    cells.sort(key=lambda cell: order.index(cell[0].benchmark))
    x = [[score.benchmark for score, _ in cells], [label for _, label in cells]]
    figure = go.Figure()
    for outcome in OUTCOMES:
        shares = [100 * getattr(score, outcome) / max(score.total, 1) for score, _ in cells]
        pattern = {"shape": PATTERNS[outcome], "fgcolor": "rgba(255,255,255,.75)", "fillmode": "overlay"}
        figure.add_bar(
            x=x, y=shares, name=f"{SIGNS[outcome]} {outcome}", marker={"color": COLOURS[outcome], "pattern": pattern},
            hovertemplate="%{x}: %{y:.1f} %<extra>" + outcome + "</extra>",
        )  # fmt: skip
    figure.add_scatter(  # a trace of its own: a bar's own whisker would hide behind the bar stacked on it
        x=x, y=[100 * score.accuracy for score, _ in cells], error_y=_wilson([score for score, _ in cells], 1.8),
        mode="markers", marker={"size": 5, "color": "#111827"}, name="95 % of correct", hovertemplate="%{y:.1f} %",
    )  # fmt: skip
    for name, symbol, values in (
        ("chance", "line-ew", [chance.get(score.benchmark) for score, _ in cells]),
        ("paper", "star-diamond", [paper.get((label, score.benchmark)) for score, label in cells]),
    ):
        if any(values):
            y = [None if not value else 100 * value for value in values]
            marker = {"symbol": symbol, "size": 22 if name == "chance" else 11, "color": "#111827"}
            marker["line"] = {
                "width": 2.5 if name == "chance" else 1.5,
                "color": "#111827" if name == "chance" else "#fff",
            }
            figure.add_scatter(x=x, y=y, mode="markers", name=name, marker=marker, hovertemplate=name + " %{y:.1f} %")
    alt = "; ".join(f"{score.benchmark}, {label}: {percent(score.accuracy)} correct" for score, label in cells)
    margin = {"l": 48, "r": 12, "t": 44, "b": 40}  # below two rows of categories plotly makes no room for the legend
    figure = styled(figure, alt, 380, barmode="stack", bargap=0.3, uirevision="bars", margin=margin)
    figure.update_layout(legend_y=1.08)
    return figure.update_yaxes(range=[0, 100], title="share of questions, %")


def _wilson(scores: Sequence[Score], thickness: float) -> dict[str, Any]:
    """Error bars in percent from the intervals that scores carry."""
    up, down = [100 * (s.high - s.accuracy) for s in scores], [100 * (s.accuracy - s.low) for s in scores]
    return {"type": "data", "array": up, "arrayminus": down, "thickness": thickness, "width": 4}


def accuracy_curves(runs: Mapping[str, Sequence[Score]], whiskers: bool = True) -> go.Figure:
    """Accuracy over epochs: one small panel per benchmark, one line per run; whiskers are Wilson's 95 % intervals."""
    names = list(dict.fromkeys(score.benchmark for scores in runs.values() for score in scores))
    columns = min(len(names), 5) or 1
    rows = -(-len(names) // columns) or 1
    figure = make_subplots(rows, columns, subplot_titles=names, shared_yaxes=True, horizontal_spacing=0.02)
    for i, (label, scores) in enumerate(runs.items()):
        for j, name in enumerate(names):
            line = sorted((score for score in scores if score.benchmark == name), key=lambda score: score.epoch)
            if not line:
                continue
            figure.add_scatter(
                x=[score.epoch for score in line], y=[100 * score.accuracy for score in line],
                error_y=_wilson(line, 1.2) if whiskers else None,
                mode="lines+markers", name=label, legendgroup=label, showlegend=j == 0,
                line={"color": LINES[i % 8], "dash": DASHES[i % 8]}, marker={"symbol": MARKERS[i % 8], "size": 7},
                hovertemplate="epoch %{x}: %{y:.1f} %", row=j // columns + 1, col=j % columns + 1,
            )  # fmt: skip
    figure = styled(figure, "Accuracy over epochs: " + "; ".join(_ends(runs)), 40 + 220 * rows, uirevision="curves")
    figure.update_layout(margin={"t": 56}, legend={"y": 1.16})
    figure.update_xaxes(dtick=1)
    return figure.update_yaxes(range=[0, 100])


def _ends(runs: Mapping[str, Sequence[Score]]) -> list[str]:
    sentences = []
    for label, scores in runs.items():
        epochs = sorted({score.epoch for score in scores})
        if epochs:
            first, last = (np.mean([s.accuracy for s in scores if s.epoch == e]) for e in (epochs[0], epochs[-1]))
            sentences.append(f"{label}: mean {percent(first)} at epoch {epochs[0]}, {percent(last)} at {epochs[-1]}")
    return sentences


PANELS = (
    ("loss", (("loss", "loss"), ("nll_loss", "NLL"))),
    ("preference", (("log_odds_chosen", "log odds ratio"), ("rewards/margins", "margin"))),
    ("log-prob per token", (("logps/chosen", "chosen"), ("logps/rejected", "rejected"))),
    ("chosen is likelier", (("rewards/accuracies", "share of pairs"),)),
)


def training_curves(metrics: Mapping[str, np.ndarray], revision: str = "") -> go.Figure:
    """Loss, odds ratio, log-probabilities and preference accuracy over steps, thinned to at most 1,000 points.

    `metrics`: TRL's names -> values, NaN where a step had none; `step` is the x axis. A changed `revision` resets zoom.
    """
    figure = make_subplots(
        2, 2, subplot_titles=[title for title, _ in PANELS], vertical_spacing=0.2, horizontal_spacing=0.09
    )
    every = max(1, -(-len(metrics.get("step", ())) // 1000))
    for place, (_, lines) in enumerate(PANELS):
        for i, (field, label) in enumerate(lines):
            if field not in metrics:
                continue
            x, y = metrics["step"].astype(np.float32), metrics[field].astype(np.float32)
            figure.add_scatter(
                x=x[::every], y=y[::every], mode="lines", name=label,
                legend=f"legend{place + 1}" if place else "legend",
                line={"color": LINES[i], "dash": DASHES[i], "width": 1.8}, showlegend=len(lines) > 1,
                hovertemplate="step %{x}: %{y:.4g}<extra>" + label + "</extra>", row=place // 2 + 1, col=place % 2 + 1,
            )  # fmt: skip
    shown = {field: metrics[field][-1] for field in ("loss", "log_odds_chosen") if len(metrics.get(field, ()))}
    alt = "Training so far: " + ", ".join(f"{field} {value:.3f}" for field, value in shown.items())
    figure = styled(figure, alt, 460, uirevision=revision, margin={"l": 44, "r": 12, "t": 30, "b": 32})
    for place, title in enumerate(figure.layout.annotations):
        left, right, top = 0.545 * (place % 2), 0.455 + 0.545 * (place % 2), 1.0 - 0.6 * (place // 2)
        title.update(x=left, xanchor="left", y=top + 0.01)
        box = {"x": right, "xanchor": "right", "y": top, "yanchor": "bottom", "orientation": "h", "font": {"size": 11}}
        figure.update_layout({f"legend{place + 1}" if place else "legend": box})
    return figure


def solve_rates(rates: Mapping[str, Sequence[float]]) -> go.Figure:
    """How many problems are solved in which share of their draws, as step outlines. `rates`: label -> fractions."""
    figure = go.Figure()
    edges = np.linspace(0, 1, 11)
    for i, (label, values) in enumerate(rates.items()):
        counts, _ = np.histogram(np.asarray(values, float), edges)
        share = 100 * counts / max(len(values), 1)
        side = SIDES["teacher"] if label.startswith("teacher") else LINES[(i + 4) % 8]
        figure.add_scatter(
            x=100 * np.repeat(edges, 2)[1:-1], y=np.repeat(share, 2), mode="lines", name=label,
            line={"color": side, "dash": DASHES[i % 8], "width": 2}, hovertemplate="%{y:.0f} % of problems",
        )  # fmt: skip
    parts = [f"{label} solves {np.mean(values):.0%} of its draws" for label, values in rates.items() if len(values)]
    figure = styled(figure, "Solve rates: " + "; ".join(parts), 220)
    figure.update_xaxes(title="draws that were correct, %", range=[0, 100])
    return figure.update_yaxes(title="problems, %", rangemode="tozero")


def pass_curve(draws: Mapping[str, Sequence[tuple[int, int]]], most: int = 16) -> go.Figure:
    """Mean unbiased pass@k over problems that have at least k draws. `draws`: label -> (draws, correct) per problem."""
    figure = go.Figure()
    parts = []
    for i, (label, cases) in enumerate(draws.items()):
        ks = [
            k for k in (1, 2, 4, 8, 16, 32, 64) if k <= most and sum(n >= k for n, _ in cases) >= max(1, len(cases) / 4)
        ]
        values = [100 * float(np.mean([pass_at_k(n, c, k) for n, c in cases if n >= k])) for k in ks]
        side = SIDES["teacher"] if label.startswith("teacher") else LINES[(i + 4) % 8]
        figure.add_scatter(
            x=ks, y=values, mode="lines+markers", name=label, hovertemplate="pass@%{x}: %{y:.1f} %",
            line={"color": side, "dash": DASHES[i % 8]}, marker={"symbol": MARKERS[i % 8], "size": 7},
        )  # fmt: skip
        parts += [f"{label} pass@{k} {value:.0f} %" for k, value in zip(ks, values, strict=True)]
    figure = styled(figure, "; ".join(parts), 220)
    figure.update_xaxes(title="k draws", type="log", tickvals=[1, 2, 4, 8, 16, 32, 64])
    return figure.update_yaxes(title="pass@k, %", range=[0, 102])


def policy_bars(epochs: Sequence[Mapping[str, float]]) -> go.Figure:
    """The mixed policy, epoch by epoch: where negatives came from, and what was missing.

    Each row: `epoch`, `initial`, `fresh`, `without_negative` (triplets), `near_copies` (traces dropped), `empty`
    (prompts that gave no wrong answer).
    """
    x = [f"epoch {row['epoch']:.0f}" for row in epochs]
    figure = go.Figure()
    for field, label, colour, shape in (
        ("initial", "initial student's mistakes", "#56B4E9", ""),
        ("fresh", "newest student's mistakes", "#9B7BE0", "/"),
        ("without_negative", "no mistake left: NLL only", "#9ca3af", "x"),
    ):
        marker = {
            "color": colour,
            "pattern": {"shape": shape, "fgcolor": "rgba(255,255,255,.7)", "fillmode": "overlay"},
        }
        figure.add_bar(x=x, y=[row[field] for row in epochs], name=label, marker=marker, hovertemplate="%{y} triplets")
    for field, label, symbol in (
        ("near_copies", "near-copies dropped", "x"),
        ("empty", "prompts out of wrong answers", "triangle-up"),
    ):
        y = [row[field] for row in epochs]
        marker = {"symbol": symbol, "size": 11, "color": "#D55E00", "line": {"color": "#fff", "width": 1}}
        figure.add_scatter(
            x=x, y=y, mode="markers", name=label, marker=marker, hovertemplate="%{y} " + label, cliponaxis=False
        )
    alt = "; ".join(
        f"epoch {row['epoch']:.0f}: {row['initial']} initial and {row['fresh']} refreshed negatives" for row in epochs
    )
    figure = styled(figure, alt, 300, barmode="stack", bargap=0.45)
    return figure.update_yaxes(title="triplets", rangemode="tozero")
