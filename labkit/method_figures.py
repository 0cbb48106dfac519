"""Methods as plotly figures: every seed a dot, so that a mean is never shown without what it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from labkit.figures import LINES, MARKERS, percent, styled

Accuracies = Mapping[str, float]  # benchmark, or `mean` -> fraction


def method_dots(
    found: Mapping[str, Sequence[Accuracies]],
    columns: int = 3,
    reference: Mapping[str, Accuracies] | None = None,
    name: str = "paper",
) -> go.Figure:
    """Accuracy per method, a panel per benchmark and one for their mean: dots are seeds, larger signs their means.

    `found`: method -> the accuracies of each seed, as `groups.by_seed`. `reference`: method -> accuracies elsewhere,
    called `name` in the legend. Fractions.
    """
    names = list(dict.fromkeys(name for seeds in found.values() for one in seeds for name in one))
    names = [*(name for name in names if name == "mean"), *(name for name in names if name != "mean")]
    columns = min(columns, len(names)) or 1
    rows = -(-len(names) // columns) or 1
    height = 60 + rows * (78 + 26 * len(found))
    figure = make_subplots(
        rows, columns, subplot_titles=names if len(names) > 1 else None, shared_yaxes=True,
        horizontal_spacing=0.03, vertical_spacing=54 / height,
    )  # fmt: skip
    for place, panel in enumerate(names):
        where = {"row": place // columns + 1, "col": place % columns + 1}
        for i, (method, seeds) in enumerate(found.items()):
            for trace in _dots(method, i, [100 * one[panel] for one in seeds if panel in one]):
                figure.add_trace(trace, **where)
        if elsewhere := {method: values[panel] for method, values in (reference or {}).items() if panel in values}:
            figure.add_trace(_elsewhere(elsewhere, name, place == 0), **where)
    alt = "Mean accuracy: " + ", ".join(
        f"{method} {percent(float(np.mean([one['mean'] for one in seeds])))} ({len(seeds)} seeds)"
        for method, seeds in found.items()
        if seeds
    )
    top = 28 + 24 * bool(reference)
    margin = {"l": 90, "r": 14, "t": top, "b": 36}
    figure = styled(figure, alt, height, margin=margin)
    figure.update_xaxes(ticksuffix=" %", nticks=5)
    return figure.update_yaxes(autorange="reversed", type="category")


def _elsewhere(values: Accuracies, name: str, legend: bool) -> go.Scatter:
    marker = {"symbol": "star-diamond-open", "size": 12, "color": "#71717a", "line": {"width": 2}}
    return go.Scatter(
        x=[100 * value for value in values.values()], y=list(values), mode="markers", name=name, marker=marker,
        showlegend=legend, hovertemplate="%{y}: %{x:.1f} %<extra>" + name + "</extra>",
    )  # fmt: skip


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
