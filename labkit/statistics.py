"""Error bars and paired tests: Wilson, exact McNemar, paired bootstrap, Holm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def wilson(successes: int, total: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), as fractions; (0, 1) for no trials."""
    if not total:
        return 0.0, 1.0
    share, z2 = successes / total, z * z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = z / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of McNemar's test: a fair coin over the questions that just one of two runs got right."""
    discordant = only_first + only_second
    tail = sum(math.comb(discordant, i) for i in range(min(only_first, only_second) + 1))
    return min(1.0, float(2 * tail / 2**discordant)) if discordant else 1.0


def paired_bootstrap(
    first: np.ndarray, second: np.ndarray, strata: Sequence[str] | None = None, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Difference of accuracy, second - first, with its 95 % percentile interval; questions are resampled in pairs.

    `first`, `second`: scores of the same questions in the same order, shape (Q,) or, for several seeds, (S, Q): seeds
    are averaged inside a question first. With `strata` (a benchmark per question) the result is the mean over
    benchmarks (macro-average) and each benchmark is resampled by itself. Returns (difference, low, high) as fractions.
    """
    change = np.atleast_2d(second).mean(axis=0) - np.atleast_2d(first).mean(axis=0)
    groups = np.asarray(strata if strata is not None else [""] * len(change))
    rng = np.random.default_rng(seed)
    means, resampled = [], []
    for group in sorted(set(groups.tolist())):
        values = change[groups == group]
        means.append(values.mean())
        resampled.append(_resampled_means(values, draws, rng))
    low, high = np.quantile(np.mean(resampled, axis=0), [0.025, 0.975])
    return float(np.mean(means)), float(low), float(high)


def _resampled_means(values: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Means of `draws` bootstrap samples: counts of the few distinct values are multinomial; no indices are drawn."""
    distinct, counts = np.unique(values, return_counts=True)
    return rng.multinomial(len(values), counts / len(values), size=draws) @ distinct / len(values)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (Holm 1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted
