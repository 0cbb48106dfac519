"""Why, as plotly figures: the odds ratio at work over steps, pairs and entropy over epochs, kinds of errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from labkit.figures import COLOURS, DASHES, LINES, MARKERS, PATTERNS, percent, styled
from labkit.why import KINDS

STEPS = (
    ("logps/chosen", "log-prob per token, chosen"),
    ("logps/rejected", "log-prob per token, rejected"),
    ("odds_factor/chosen", "1 / (1 − p), chosen"),
    ("odds_factor/rejected", "1 / (1 − p), rejected"),
)
EPOCHS = (("shared_words", "rejected words also chosen, %", 100.0), ("nats", "nats per sampled token", 1.0))
LOOKS = {
    "correct": (COLOURS["correct"], ""), "misconception": ("#0072B2", "\\"), "other wrong": (COLOURS["wrong"], "/"),
    "unparsed": (COLOURS["unparsed"], PATTERNS["unparsed"]), "truncated": (COLOURS["truncated"], PATTERNS["truncated"]),
}  # fmt: skip


def odds_at_work(runs: Mapping[str, Mapping[str, np.ndarray]]) -> go.Figure:
    """Log-probabilities of both sides and their odds factors over steps; a line per run.

    `runs`: label -> columns as `why.steps` has them; labels without pairs are left out.
    """
    figure = make_subplots(2, 2, subplot_titles=[title for _, title in STEPS], vertical_spacing=0.16)
    shown = {label: columns for label, columns in runs.items() if "odds_factor/chosen" in columns}
    for i, (label, columns) in enumerate(shown.items()):
        every = max(1, -(-len(columns["step"]) // 1000))
        for place, (field, _) in enumerate(STEPS):
            figure.add_scatter(
                x=columns["step"][::every], y=columns[field][::every], mode="lines", name=label, legendgroup=label,
                showlegend=place == 0, line={"color": LINES[i % 8], "dash": DASHES[i % 8], "width": 1.8},
                hovertemplate="step %{x}: %{y:.3g}<extra>" + label + "</extra>",
                row=place // 2 + 1, col=place % 2 + 1,
            )  # fmt: skip
    told = [f"{label} {np.nanmean(columns['odds_factor/chosen']):.1f}" for label, columns in shown.items()]
    figure = styled(figure, "Mean factor 1/(1-p) of the chosen side: " + ", ".join(told), 480)
    figure.update_layout(margin={"t": 66}, legend={"y": 1.08})
    return figure.update_yaxes(type="log", row=2)


def by_epoch(found: Mapping[str, Sequence[Mapping[str, float]]]) -> go.Figure:
    """What pairs share and how unsure the student is, epoch by epoch. `found`: label -> rows of `why.epochs`."""
    figure, told = make_subplots(1, 2, subplot_titles=[title for _, title, _ in EPOCHS]), []
    for i, (label, rows) in enumerate(found.items()):
        for place, (field, _, scale) in enumerate(EPOCHS):
            line = [(row["epoch"], scale * row[field]) for row in rows if field in row]
            figure.add_scatter(
                x=[epoch for epoch, _ in line], y=[value for _, value in line], mode="lines+markers", name=label,
                legendgroup=label, showlegend=place == 0, line={"color": LINES[i % 8], "dash": DASHES[i % 8]},
                marker={"symbol": MARKERS[i % 8], "size": 7}, hovertemplate="epoch %{x}: %{y:.3g}",
                row=1, col=place + 1,
            )  # fmt: skip
            told += [f"{label} {field} {line[0][1]:.3g} to {line[-1][1]:.3g}"] if line else []
    figure = styled(figure, "Over epochs: " + "; ".join(told), 280)
    figure.update_layout(margin={"t": 56}, legend={"y": 1.16})
    return figure.update_xaxes(dtick=1, title="epoch")


def error_bars(found: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Shares of each kind of answer, a bar per method. `found`: as `why.error_types` has it."""
    figure = go.Figure()
    for kind in KINDS:
        colour, shape = LOOKS[kind]
        pattern = {"shape": shape, "fgcolor": "rgba(255,255,255,.7)", "fillmode": "overlay"}
        figure.add_bar(
            y=list(found), x=[100 * shares[kind] for shares in found.values()], name=kind, orientation="h",
            marker={"color": colour, "pattern": pattern},
            hovertemplate="%{y}: %{x:.1f} %<extra>" + kind + "</extra>",
        )  # fmt: skip
    told = [f"{method} {percent(shares['misconception'])} misconceptions" for method, shares in found.items()]
    figure = styled(figure, "; ".join(told), 90 + 30 * len(found), barmode="stack", bargap=0.3)
    figure.update_yaxes(autorange="reversed", type="category")
    return figure.update_xaxes(range=[0, 100], ticksuffix=" %")
