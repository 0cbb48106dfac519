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
        at = {"row": place // columns + 1, "col": place % columns + 1}
        for i, (method, seeds) in enumerate(found.items()):
            values = [100 * one[name] for one in seeds if name in one]
            dot = {"color": LINES[i % 8], "size": 8, "opacity": 0.55, "symbol": "circle"}
            mean = {
                "color": LINES[i % 8],
                "size": 12,
                "symbol": MARKERS[(i + 1) % 8],
                "line": {"width": 1.5, "color": "#fff"},
            }
            hover = "%{y}: %{x:.1f} %<extra>"
            y = [method] * len(values)
            figure.add_scatter(
                x=values,
                y=y,
                mode="markers",
                marker=dot,
                showlegend=False,
                hovertemplate=hover + "a seed</extra>",
                **at,
            )
            figure.add_scatter(
                x=[float(np.mean(values))] if values else [], y=y[:1], mode="markers", marker=mean, showlegend=False,
                hovertemplate=hover + "mean</extra>", **at,
            )  # fmt: skip
    alt = "Mean accuracy: " + ", ".join(
        f"{method} {percent(float(np.mean([one['mean'] for one in seeds])))}"
        for method, seeds in found.items()
        if seeds
    )
    figure = styled(figure, alt, 60 + rows * (60 + 26 * len(found)), margin={"l": 90, "r": 14, "t": 28, "b": 36})
    figure.update_xaxes(ticksuffix=" %", nticks=6)
    return figure.update_yaxes(autorange="reversed", type="category")
