"""Pair every chosen trace with a wrong one of the same problem; mixed policy: some from the newest student.

The coins are tossed before anything is sampled, so an epoch samples only the fresh negatives that it will use.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from labkit.config import RunConfig
from labkit.records import Trace, Triplet

Pools = Mapping[str, Sequence[Trace]]  # problem id -> kept traces, in the order they were drawn


def coins(seed: int, epoch: int, problem: str, n: int, phi: float) -> list[bool]:
    """For each of `n` negatives of a problem, whether the newest student provides it (probability phi; paper, step 5).

    Epoch 1 trains the initial student, which is also the newest: no coin says fresh.
    """
    rng = random.Random(f"{seed}/policy/{epoch}/{problem}")
    return [rng.random() < phi and epoch > 1 for _ in range(n)]


def make(
    chosen: Pools, initial: Pools, fresh: Pools, *, epoch: int, phi: float, seed: int, unpaired: str = "nll"
) -> list[Triplet]:
    """One triplet per chosen trace, in the order of `chosen`; negatives without repetition while the pool lasts.

    `initial`: wrong traces of the initial student (or of the teacher); `fresh`: of the newest student. Where the fresh
    pool has run dry the initial one serves, and the other way round. With neither, the triplet has no rejected side
    (`unpaired="nll"`) or is left out (`"drop"`).
    """
    triplets = []
    for problem, traces in chosen.items():
        wants = coins(seed, epoch, problem, len(traces), phi)
        negatives = _deal(
            wants, initial.get(problem, ()), fresh.get(problem, ()), f"{seed}/negatives/{epoch}/{problem}"
        )
        for draw, (trace, negative) in enumerate(zip(traces, negatives, strict=True)):
            if negative is not None or unpaired == "nll":
                triplets.append(_triplet(epoch, draw, trace, negative))
    return triplets


def _deal(wants: list[bool], initial: Sequence[Trace], fresh: Sequence[Trace], address: str) -> list[Trace | None]:
    """A negative per want, from two shuffled decks that are shuffled anew only when both have run out."""
    rng = random.Random(address)
    decks: dict[bool, list[Trace]] = {False: [], True: []}
    dealt: list[Trace | None] = []
    for want in wants:
        if not decks[False] and not decks[True]:
            decks = {False: rng.sample(initial, len(initial)), True: rng.sample(fresh, len(fresh))}
        deck = decks[want] or decks[not want]
        dealt.append(deck.pop() if deck else None)
    return dealt


def _triplet(epoch: int, draw: int, chosen: Trace, rejected: Trace | None) -> Triplet:
    return Triplet(
        problem=chosen.problem,
        epoch=epoch,
        draw=draw,
        chosen=chosen.text,
        rejected=rejected.text if rejected else None,
        chosen_draw=chosen.draw,
        rejected_draw=rejected.draw if rejected else None,
        rejected_side=rejected.side if rejected else None,
        rejected_epoch=rejected.epoch if rejected else None,
    )


def tally(triplets: Sequence[Triplet]) -> dict[str, float]:
    """What an epoch's triplets are made of: counts, and the realised share of negatives from the newest student."""
    paired = [triplet for triplet in triplets if triplet.rejected is not None]
    fresh = sum((triplet.rejected_epoch or 0) > 0 for triplet in paired)
    distinct = len({(t.problem, t.rejected_side, t.rejected_epoch, t.rejected_draw) for t in paired})
    return {
        "triplets": len(triplets),
        "without_negative": len(triplets) - len(paired),
        "fresh": fresh,
        "fresh_share": round(fresh / len(paired), 4) if paired else 0.0,
        "repeated_negatives": len(paired) - distinct,
    }


def steps(problems: Sequence[str], config: RunConfig, epoch: int) -> list[list[int]]:
    """Which rows each optimiser step of an epoch takes, as positions in `problems` (a problem id per row, in order).

    `batch` rows a step, up to `pairs_per_prompt` of one problem together, in an order fixed by the seed.
    """
    rng = random.Random(f"{config.seed}/order/{epoch}")
    by_problem: dict[str, list[int]] = {}
    for row, problem in enumerate(problems):
        by_problem.setdefault(problem, []).append(row)
    groups: list[list[int]] = []
    for rows in by_problem.values():
        rng.shuffle(rows)
        groups += [rows[i : i + config.pairs_per_prompt] for i in range(0, len(rows), config.pairs_per_prompt)]
    rng.shuffle(groups)
    line = [row for group in groups for row in group]
    return [line[i : i + config.batch] for i in range(0, len(line), config.batch)]
