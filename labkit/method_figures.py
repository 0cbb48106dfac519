"""Methods as plotly figures: every seed a dot, so that a mean is never shown without what it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from labkit.figures import LINES, MARKERS, percent, styled


def method_dots(found: Mapping[str, Sequence[Mapping[str, float]]], columns: int = 3) -> go.Figure:
    """Accuracy per method, a panel per benchmark and one for their mean: dots are seeds, diamonds are means.

    `found`: method -> for each seed benchmark (or `mean`) -> accuracy as a fraction.
    """
    names = list(dict.fromkeys(name for seeds in found.values() for one in seeds for name in one))
    names = [*(name for name in names if name == "mean"), *(name for name in names if name != "mean")]
    columns = min(columns, len(names)) or 1
    rows = -(-len(names) // columns) or 1
    figure = make_subplots(
        rows, columns, subplot_titles=names, shared_yaxes=True, horizontal_spacing=0.03, vertical_spacing=0.3 / rows
    )
    for place, name in enumerate(names):
        for i, (method, seeds) in enumerate(found.items()):
            values = [100 * one[name] for one in seeds if name in one]
            for trace in _dots(method, i, values):
                figure.add_trace(trace, row=place // columns + 1, col=place % columns + 1)
    alt = "Mean accuracy: " + ", ".join(
        f"{method} {percent(float(np.mean([one['mean'] for one in seeds])))}"
        for method, seeds in found.items()
        if seeds
    )
    figure = styled(figure, alt, 60 + rows * (60 + 26 * len(found)), margin={"l": 90, "r": 14, "t": 28, "b": 36})
    figure.update_xaxes(ticksuffix=" %", nticks=6)
    return figure.update_yaxes(autorange="reversed", type="category")


def _dots(method: str, number: int, values: Sequence[float]) -> list[go.Scatter]:
    """The seeds of a method as dots, and their mean."""
    colour, symbol = LINES[number % 8], MARKERS[(number + 1) % 8]
    dot = {"color": colour, "size": 8, "opacity": 0.55}
    big = {"color": colour, "size": 12, "symbol": symbol, "line": {"width": 1.5, "color": "#fff"}}
    mean = [float(np.mean(values))] if values else []
    return [
        go.Scatter(
            x=x, y=[method] * len(x), mode="markers", marker=marker, showlegend=False,
            hovertemplate="%{y}: %{x:.1f} %<extra>" + what + "</extra>",
        )
        for x, marker, what in ((list(values), dot, "a seed"), (mean, big, "mean"))
    ]  # fmt: skip
