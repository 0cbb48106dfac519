"""Pair every chosen trace with a wrong one of the same problem; mixed policy: some from the newest student.

The coins are tossed before anything is sampled, so an epoch samples only the fresh negatives that it will use.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from labkit.config import RunConfig
from labkit.diversity import rouge_l, words
from labkit.records import Trace, Triplet

Pools = Mapping[str, Sequence[Trace]]  # problem id -> kept traces, in the order they were drawn


def coins(seed: int, epoch: int, problem: str, n: int, phi: float) -> list[bool]:
    """For each of `n` negatives of a problem, whether the newest student provides it (probability phi; paper, step 5).

    Epoch 1 trains the initial student, which is also the newest: no coin says fresh.
    """
    rng = random.Random(f"{seed}/policy/{epoch}/{problem}")
    return [rng.random() < phi and epoch > 1 for _ in range(n)]


def phi_at(phi: float, schedule: str, epoch: int, epochs: int) -> float:
    """The share of fresh negatives in an epoch: phi at once, or rising from 0 in epoch 1 to phi in the last one."""
    progress = (epoch - 1) / max(epochs - 1, 1)
    if schedule == "linear":
        return phi * progress
    return phi * (1 - math.cos(math.pi * progress)) / 2 if schedule == "cosine" else phi


def sources(wants: Sequence[bool], seed: int, epoch: int, problem: str, past_weight: float) -> list[int]:
    """The student, by its epochs of training, that each negative is wanted from: 0 where the coin says initial.

    A fresh one comes from the newest student, or with `past_weight` from one of age a with odds past_weight ** a.
    """
    rng = random.Random(f"{seed}/ages/{epoch}/{problem}")
    weights = [past_weight ** (epoch - 1 - source) for source in range(1, epoch)]  # 0 ** 0 is 1
    return [rng.choices(range(1, epoch), weights)[0] if fresh else 0 for fresh in wants]


def make(
    chosen: Pools, initial: Pools, fresh: Pools, *, epoch: int, phi: float, seed: int, unpaired: str = "nll",
    past_weight: float = 0.0, partner: str = "random",
) -> list[Triplet]:  # fmt: skip
    """One triplet per chosen trace, in the order of `chosen`; negatives without repetition while the pool lasts.

    `initial`: wrong traces of the initial student (or of the teacher); `fresh`: of later students, each trace's `epoch`
    saying which. Where a pool has run dry another serves, the newest first. With none at all, the triplet has no
    rejected side (`unpaired="nll"`) or is left out (`"drop"`).
    """
    triplets = []
    for problem, traces in chosen.items():
        wants = sources(coins(seed, epoch, problem, len(traces), phi), seed, epoch, problem, past_weight)
        pools: dict[int, list[Trace]] = {0: list(initial.get(problem, ()))}
        for trace in fresh.get(problem, ()):
            pools.setdefault(trace.epoch, []).append(trace)
        near = [trace.text for trace in traces] if partner == "nearest" else []
        negatives = _deal(wants, pools, near, f"{seed}/negatives/{epoch}/{problem}")
        for draw, (trace, negative) in enumerate(zip(traces, negatives, strict=True)):
            if negative is not None or unpaired == "nll":
                triplets.append(_triplet(epoch, draw, trace, negative))
    return triplets


def _deal(
    wants: Sequence[int], pools: Mapping[int, Sequence[Trace]], near: Sequence[str], address: str
) -> list[Trace | None]:
    """A negative per want, from shuffled decks (one per source) that are shuffled anew only when all have run out.

    `near`: the texts that the negatives are to be most like, one per want; empty for the top card.
    """
    rng = random.Random(address)
    decks: dict[int, list[Trace]] = {}
    dealt: list[Trace | None] = []
    for place, want in enumerate(wants):
        if not any(decks.values()):
            decks = {source: rng.sample(pool, len(pool)) for source, pool in sorted(pools.items())}
        deck = decks.get(want) or next((decks[source] for source in sorted(decks, reverse=True) if decks[source]), [])
        dealt.append(deck.pop(_nearest(deck, near[place]) if near else -1) if deck else None)
    return dealt


def _nearest(deck: Sequence[Trace], text: str) -> int:
    """The place of the trace with the highest ROUGE-L to a text."""
    target = words(text)
    alike = [rouge_l(target, words(trace.text)) for trace in deck]
    return alike.index(max(alike))


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
        "shared_words": round(sum(map(_shared, paired)) / len(paired), 4) if paired else 0.0,
    }


def _shared(pair: Triplet) -> float:
    """Share of the rejected side's words, each occurrence counted, that also occur in the chosen one."""
    said, other = Counter(words(pair.chosen)), Counter(words(pair.rejected or ""))
    return (said & other).total() / max(other.total(), 1)


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
