"""Figures of a study: what sampling, the loss and several runs show. Plain numbers -> plotly, looks of figures.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from labkit.figures import COLOURS, DASHES, LINES, MARKERS, PATTERNS, SIGNS, styled
from labkit.records import OUTCOMES

INK = "#71717a"
USES = {
    "kept": ("#009E73", ""),
    "near-copy": ("#56B4E9", "/"),
    "surplus": ("#9ca3af", "."),
    "loose": ("#E69F00", "x"),
    "other": ("#D55E00", "-"),
}


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    *,
    log_x: bool = False,
    markers: bool = True,
    band: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
) -> go.Figure:
    """One line per label from (xs, ys). `x`, `y`: axis titles. `band`: label -> (low, high) at the same xs."""
    figure, ends = go.Figure(), []
    for i, (label, (xs, ys)) in enumerate(series.items()):
        low, high = (band or {}).get(label, ((), ()))
        error = {
            "type": "data", "array": np.subtract(high, ys), "arrayminus": np.subtract(ys, low), "thickness": 1.2,
            "width": 4,
        } if len(low) else None  # fmt: skip
        figure.add_scatter(
            x=list(xs), y=list(ys), name=label, mode="lines+markers" if markers else "lines", error_y=error,
            line={"color": LINES[i % 8], "dash": DASHES[i % 8], "width": 2},
            marker={"symbol": MARKERS[i % 8], "size": 7}, hovertemplate="%{x:.4g}: %{y:.4g}",
        )  # fmt: skip
        ends.append(f"{label} from {ys[0]:.3g} at {xs[0]:.3g} to {ys[-1]:.3g} at {xs[-1]:.3g}")
    figure = styled(figure, f"{y} over {x}: {'; '.join(ends)}", 320)
    figure.update_xaxes(title=x, type="log" if log_x else "linear")
    return figure.update_yaxes(title=y)


def heatmap(values: Sequence[Sequence[float]], labels: Sequence[str], what: str, threshold: float) -> go.Figure:
    """A square of likenesses from 0 to 1, each written in its cell; those above `threshold` carry a star."""
    stars = [["*" if v > threshold and i != j else "" for j, v in enumerate(row)] for i, row in enumerate(values)]
    text = [[f"{v:.2f}{star}" for v, star in zip(*rows, strict=True)] for rows in zip(values, stars, strict=True)]
    figure = go.Figure(
        go.Heatmap(
            z=values, x=list(labels), y=list(labels), text=text, texttemplate="%{text}", zmin=0, zmax=1,
            colorscale="Cividis", colorbar={"title": {"text": what}, "thickness": 12},
            hovertemplate="%{x} and %{y}: %{z:.2f}<extra></extra>",
        )
    )  # fmt: skip
    upper = [values[i][j] for i in range(len(values)) for j in range(i)]
    alt = f"{what} between {len(values)} traces: mean {np.mean(upper):.2f}, {sum(v > threshold for v in upper)} of "
    figure = styled(figure, f"{alt}{len(upper)} pairs above {threshold}", 120 + 38 * len(values))
    return figure.update_yaxes(autorange="reversed")


def uses(counts: Mapping[str, Mapping[str, int]]) -> go.Figure:
    """Stacked bars: what became of the draws. `counts`: label -> use of a trace (`Trace.use`) -> how many."""
    figure = go.Figure()
    for use, (colour, shape) in USES.items():
        marker = {
            "color": colour,
            "pattern": {"shape": shape, "fgcolor": "rgba(255,255,255,.7)", "fillmode": "overlay"},
        }
        values = [row.get(use, 0) for row in counts.values()]
        figure.add_bar(y=list(counts), x=values, orientation="h", name=use, marker=marker, hovertemplate="%{x} " + use)
    parts = [f"{label}: " + ", ".join(f"{n} {use}" for use, n in row.items() if n) for label, row in counts.items()]
    figure = styled(figure, "; ".join(parts), 110 + 44 * len(counts), barmode="stack", bargap=0.4)
    figure.update_yaxes(autorange="reversed")
    return figure.update_xaxes(title="draws")


def outcome_bars(shares: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Stacked bars of correct, wrong, unparsed and truncated per label, as fractions of one."""
    figure = go.Figure()
    for outcome in OUTCOMES:
        pattern = {"shape": PATTERNS[outcome], "fgcolor": "rgba(255,255,255,.75)", "fillmode": "overlay"}
        figure.add_bar(
            x=list(shares), y=[100 * row.get(outcome, 0) for row in shares.values()],
            name=f"{SIGNS[outcome]} {outcome}", marker={"color": COLOURS[outcome], "pattern": pattern},
            hovertemplate="%{x}: %{y:.1f} %<extra>" + outcome + "</extra>",
        )  # fmt: skip
    alt = "; ".join(f"{label}: {100 * row.get('correct', 0):.0f} % correct" for label, row in shares.items())
    figure = styled(figure, alt, 320, barmode="stack", bargap=0.35)
    return figure.update_yaxes(title="share, %", range=[0, 100])


def distributions(values: Mapping[str, Sequence[float]], x: str, floor: float = -np.inf, bins: int = 24) -> go.Figure:
    """Histograms as step outlines, each in percent of its own values; what lies below `floor` is in the first bin."""
    everything = np.concatenate([np.asarray(v, float) for v in values.values() if len(v)])
    edges = np.linspace(max(floor, everything.min()), everything.max() + 1e-9, bins + 1)
    figure = go.Figure()
    for i, (label, sample) in enumerate(values.items()):
        share = 100 * np.histogram(np.maximum(np.asarray(sample, float), edges[0]), edges)[0] / max(len(sample), 1)
        figure.add_scatter(
            x=np.repeat(edges, 2)[1:-1].tolist(), y=np.repeat(share, 2).tolist(), name=label, mode="lines",
            line={"color": LINES[i % 8], "dash": DASHES[i % 8], "width": 2}, hovertemplate="%{y:.1f} %",
        )  # fmt: skip
    parts = [f"{label}: mean {np.mean(v):.3g}, {len(v)} values" for label, v in values.items() if len(v)]
    figure = styled(figure, f"{x}: {'; '.join(parts)}", 300)
    figure.update_xaxes(title=x)
    return figure.update_yaxes(title="share, %", rangemode="tozero")


def forest(rows: Mapping[str, tuple[float, float, float]], x: str = "difference, points") -> go.Figure:
    """Differences with their intervals, one line each, and a line at nothing. `rows`: label -> (value, low, high) as
    fractions; drawn in points."""
    figure = go.Figure()
    for label, (value, low, high) in rows.items():
        sure = low > 0 or high < 0
        figure.add_scatter(
            x=[100 * value], y=[label], mode="markers", name=label, showlegend=False,
            marker={"symbol": "diamond" if sure else "diamond-open", "size": 11, "color": LINES[0] if sure else INK},
            error_x={"type": "data", "array": [100 * (high - value)], "arrayminus": [100 * (value - low)], "width": 5},
            hovertemplate="%{x:+.1f} points",
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": INK, "width": 1.5, "dash": "dot"})
    parts = [f"{label} {100 * v:+.1f} ({100 * lo:+.1f} to {100 * hi:+.1f})" for label, (v, lo, hi) in rows.items()]
    figure = styled(figure, f"{x}: {'; '.join(parts)}", 90 + 40 * len(rows))
    figure.update_yaxes(autorange="reversed", type="category")
    return figure.update_xaxes(title=x)


def token_bars(tokens: Sequence[str], logps: Sequence[float], label: str) -> go.Figure:
    """Log-probability of every token of one response, in order; the lowest are what the mean suffers from."""
    names = [f"{i}: {token}" for i, token in enumerate(tokens)]
    figure = go.Figure(go.Bar(x=names, y=list(logps), marker={"color": LINES[0]}, hovertemplate="%{x}: %{y:.3f}"))
    lowest = int(np.argmin(logps))
    low = f"lowest {logps[lowest]:.2f} at {tokens[lowest]!r}"
    alt = f"{label}: {len(tokens)} tokens, mean log-probability {np.mean(logps):.3f} nats, {low}"
    figure = styled(figure, alt, 300, bargap=0.15)
    figure.update_xaxes(tickangle=-60, tickfont={"size": 9})
    return figure.update_yaxes(title="log-probability, nats")


def odds_sliders(chosen: Sequence[float], lams: Sequence[float], points: int = 50) -> go.Figure:
    """ORPO's two terms and their sum over the rejected trace's mean log-probability; sliders need no kernel.

    `chosen`: mean log-probabilities of the chosen trace, `lams`: values of lambda; a slider over their pairs.
    """
    rejected = np.linspace(-3, -0.02, points)
    figure, steps = go.Figure(), []
    cases = [(c, lam) for lam in lams for c in chosen]
    for i, (c, lam) in enumerate(cases):
        part = lam * _odds_loss(c, rejected)
        for j, (label, ys) in enumerate(
            (("NLL of chosen", np.full(points, -c)), ("λ · L_OR", part), ("sum", part - c))
        ):
            line = {"color": LINES[j], "dash": DASHES[j], "width": 2}
            xs, ys = rejected.round(3).tolist(), ys.round(3).tolist()
            figure.add_scatter(x=xs, y=ys, name=label, mode="lines", line=line, visible=i == len(cases) // 2)
        shown = [n // 3 == i for n in range(3 * len(cases))]
        steps.append({"method": "update", "args": [{"visible": shown}], "label": f"{lam:g} / {c:g}"})
    slider = {
        "steps": steps,
        "active": len(cases) // 2,
        "pad": {"t": 44},
        "currentvalue": {"visible": True, "prefix": "λ / chosen log-probability: "},
    }
    first = "chosen {:g}, λ = {:g}".format(*cases[len(cases) // 2])
    alt = f"ORPO loss over the rejected trace's mean log-probability ({first}): flat while it is unlikely, steep near 0"
    figure = styled(figure, alt, 420, sliders=[slider])
    figure.update_xaxes(title="mean log-probability of the rejected trace, nats")
    return figure.update_yaxes(title="loss, nats", range=[0, 6])


def _odds_loss(chosen: float, rejected: np.ndarray) -> np.ndarray:
    """-log sigmoid(log odds(chosen) - log odds(rejected)) of mean log-probabilities, as `labkit.orpo`, in numpy."""
    log_odds = (chosen - np.log1p(-np.exp(chosen))) - (rejected - np.log1p(-np.exp(rejected)))
    return np.logaddexp(0, -log_odds)
