"""Ablations as plotly figures: a panel per setting, seeds as dots, the mean as a line, its interval as whiskers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from labkit.figures import LINES, MARKERS, percent, styled
from labkit.sweeps import Point


def sweep_curves(found: Mapping[str, Sequence[Point]], columns: int = 3) -> go.Figure:
    """Mean accuracy over the values of each setting, with the 95 % interval over questions; the recipe's own is open.

    `found`: setting -> points in order, as `sweeps.points` has them. Values stand at equal distances.
    """
    columns = min(columns, len(found)) or 1
    rows = -(-len(found) // columns) or 1
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=list(found),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.3 / rows,
    )
    for place, line in enumerate(found.values()):
        for trace in _line(line):
            figure.add_trace(trace, row=place // columns + 1, col=place % columns + 1)
    alt = "; ".join(
        f"{field}: " + ", ".join(f"{worded(point)} {percent(point.mean)}" for point in line)
        for field, line in found.items()
    )
    figure = styled(figure, f"Mean accuracy by setting. {alt}", 60 + 230 * rows, margin={"t": 28})
    figure.update_xaxes(type="category")
    return figure.update_yaxes(ticksuffix=" %")


def worded(point: Point) -> str:
    """A point's value as people write it."""
    value = point.value
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _line(line: Sequence[Point]) -> list[go.Scatter]:
    names = [worded(point) for point in line]
    dots = [(name, 100 * value) for name, point in zip(names, line, strict=True) for value in point.by_seed]
    whiskers = {
        "type": "data", "array": [100 * (point.high - point.mean) for point in line],
        "arrayminus": [100 * (point.mean - point.low) for point in line], "thickness": 1.2, "width": 4,
    }  # fmt: skip
    signs = [MARKERS[1] + ("-open" if point.base else "") for point in line]
    return [
        go.Scatter(
            x=names, y=[100 * point.mean for point in line], error_y=whiskers, mode="lines+markers", showlegend=False,
            line={"color": LINES[0]}, marker={"size": 10, "symbol": signs},
            hovertemplate="%{x}: %{y:.1f} %<extra>mean</extra>",
        ),
        go.Scatter(
            x=[name for name, _ in dots], y=[value for _, value in dots], mode="markers", showlegend=False,
            marker={"color": LINES[1], "size": 6, "opacity": 0.7},
            hovertemplate="%{x}: %{y:.1f} %<extra>a seed</extra>",
        ),
    ]  # fmt: skip
