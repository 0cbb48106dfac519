"""What the initial student gets wrong decides where the teacher's traces go: more of them, or more often shown."""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping, Sequence

from labkit.records import Trace

Pools = Mapping[str, Sequence[Trace]]


def error_rates(traces: Sequence[Trace]) -> dict[str, float]:
    """Problem id -> share of its draws that are not correct, as (errors + 1) / (draws + 2): never 0, never 1."""
    drawn: dict[str, int] = {}
    missed: dict[str, int] = {}
    for trace in traces:
        drawn[trace.problem] = drawn.get(trace.problem, 0) + 1
        missed[trace.problem] = missed.get(trace.problem, 0) + (trace.outcome != "correct")
    return {problem: (missed[problem] + 1) / (n + 2) for problem, n in drawn.items()}


def apportion(weights: Mapping[str, float], total: int, most: int) -> dict[str, int]:
    """`total` shared out in proportion to the weights, 1 to `most` each, by D'Hondt's highest averages; what fits."""
    shares = dict.fromkeys(weights, 1)
    heap = [(-weight / 2, problem) for problem, weight in weights.items()]
    heapq.heapify(heap)
    for _ in range(total - len(shares)):
        while heap and shares[heap[0][1]] >= most:
            heapq.heappop(heap)
        if not heap:
            break
        _, problem = heap[0]
        shares[problem] += 1
        heapq.heapreplace(heap, (-weights[problem] / (shares[problem] + 1), problem))
    return shares


def shown(chosen: Pools, rates: Mapping[str, float], seed: int, epoch: int) -> dict[str, list[Trace]]:
    """As many chosen traces as there are, but each problem's as often as its error rate says; which ones, by the epoch.

    A problem is shown at least once, and its traces at most four times an epoch.
    """
    told = {problem: pool for problem, pool in chosen.items() if pool}
    total = sum(map(len, told.values()))
    counts = apportion({problem: rates.get(problem, 0.5) for problem in told}, total, 4 * max(map(len, told.values())))
    return {problem: _dealt(pool, counts[problem], f"{seed}/shown/{epoch}/{problem}") for problem, pool in told.items()}


def _dealt(pool: Sequence[Trace], n: int, address: str) -> list[Trace]:
    """`n` traces without repetition while the pool lasts."""
    rng, dealt = random.Random(address), []
    while len(dealt) < n:
        dealt += rng.sample(list(pool), len(pool))
    return dealt[:n]
