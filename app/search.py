"""Which problems and traces a view shows: filters over the index, counts per problem, an order. Numbers only, no text
but where text is searched for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from app import indexed, store
from labkit.records import OUTCOMES, Problem, Trace

ALL = "all"
ORDERS = ("as in the run", "hardest first", "easiest first", "longest first", "shortest first")


@dataclass(frozen=True)
class Query:
    """What to show; ALL means no filter."""

    q: str = ""
    benchmark: str = ALL
    outcome: str = ALL
    side: str = ALL
    epoch: str = ALL
    model: str = ALL
    order: str = ORDERS[0]


@dataclass(frozen=True)
class Found:
    """The problems of a view in order, with counts of their matching traces."""

    problems: tuple[str, ...]
    counts: np.ndarray  # (problems, outcomes)
    tokens: np.ndarray  # (problems,) mean tokens of a trace
    traces: int


def find(where: Path, query: Query) -> Found:
    """The problems with at least one matching trace; without any trace files, all training problems."""
    paths = sorted((where / "traces").glob("*.jsonl"))
    return _find(where, query, store.stamp(where / "problems.jsonl", *paths))


@lru_cache(maxsize=64)
def _find(where: Path, query: Query, stamp: str) -> Found:
    problems = store.problems(where)
    size = len(problems)
    counts, tokens = np.zeros((size, len(OUTCOMES)), np.int64), np.zeros(size)
    for one in indexed.traces(where):
        mask = _mask(one, query) & (one.columns["problem"] < size)
        at = one.columns["problem"][mask]
        cells = at * len(OUTCOMES) + one.columns["outcome"][mask]
        counts += np.bincount(cells, minlength=counts.size).reshape(counts.shape)
        tokens += np.bincount(at, weights=one.columns["tokens"][mask], minlength=size)
    draws = counts.sum(axis=1)
    ids = np.array(list(problems), object)
    shown = draws > 0
    if query.benchmark != ALL:
        shown &= np.array([problem.benchmark == query.benchmark for problem in problems.values()], bool)
    if query.q:
        shown |= _asked(problems, query)
    order = _order(np.flatnonzero(shown), counts, tokens / np.maximum(draws, 1), query.order)
    mean = tokens[order] / np.maximum(draws[order], 1)
    return Found(tuple(ids[order]), counts[order], mean, int(draws[order].sum()))


def _asked(problems: dict[str, Problem], query: Query) -> np.ndarray:
    """Training problems whose question or id holds the words that are searched for."""
    wanted = query.q.lower()
    return np.array(
        [
            problem.split == "train"
            and query.benchmark in (ALL, problem.benchmark)
            and (wanted in problem.question.lower() or wanted in problem.id.lower())
            for problem in problems.values()
        ],
        bool,
    )


def _mask(one: indexed.Index, query: Query) -> np.ndarray:
    columns = one.columns
    mask = np.ones(len(one), bool)
    if query.outcome != ALL:
        mask &= columns["outcome"] == OUTCOMES.index(query.outcome)
    if query.side != ALL:
        mask &= columns["side"] == indexed.SIDES.index(query.side)
    if query.epoch != ALL:
        mask &= columns["epoch"] == int(query.epoch)
    if query.model != ALL:
        mask &= columns["model"] == (one.models.index(query.model) if query.model in one.models else -1)
    if query.q and mask.any():
        mask &= indexed.containing(one, query.q)
    return mask


def _order(shown: np.ndarray, counts: np.ndarray, tokens: np.ndarray, order: str) -> np.ndarray:
    if order == ORDERS[0]:
        return shown
    rate = counts[:, 0] / np.maximum(counts.sum(axis=1), 1)
    key = {ORDERS[1]: rate, ORDERS[2]: -rate, ORDERS[3]: -tokens, ORDERS[4]: tokens}[order]
    return shown[np.argsort(key[shown], kind="stable")]


def matches(trace: Trace, query: Query) -> bool:
    """Whether a trace is part of the view. A view that searches for words of the question shows all its traces."""
    return (
        query.outcome in (ALL, trace.outcome)
        and query.side in (ALL, trace.side)
        and query.epoch in (ALL, str(trace.epoch))
        and query.model in (ALL, trace.model)
        and query.q.lower() in trace.text.lower()
    )


def choices(where: Path) -> dict[str, list[str]]:
    """What each filter offers for this run."""
    found = indexed.traces(where)
    train = [problem.benchmark for problem in store.problems(where).values() if problem.split == "train"]
    epochs = sorted({int(epoch) for one in found for epoch in np.unique(one.columns["epoch"])})
    return {
        "benchmark": [ALL, *dict.fromkeys(train)],
        "outcome": [ALL, *OUTCOMES],
        "side": [ALL, *indexed.SIDES],
        "epoch": [ALL, *map(str, epochs)],
        "model": [ALL, *dict.fromkeys(model for one in found for model in one.models)],
        "order": list(ORDERS),
    }


def first_draws(where: Path, most: int) -> dict[str, list[tuple[int, int]]]:
    """Stage label -> (draws, correct) per problem over its first `most` draws.

    Sampling goes on until enough traces are kept, so later draws come from hard problems only and are left out.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for one in indexed.traces(where):
        columns = one.columns
        early = columns["draw"] < most
        draws = np.bincount(columns["problem"][early])
        right = np.bincount(columns["problem"][early], weights=columns["outcome"][early] == 0, minlength=len(draws))
        label = stage_label(indexed.SIDES[columns["side"][0]], int(columns["epoch"][0]))
        found.setdefault(label, []).extend(
            (int(n), int(c)) for n, c in zip(draws[draws > 0], right[draws > 0], strict=True)
        )
    return found


def stage_label(side: str, epoch: int) -> str:
    """`teacher`, `student, initial` or `student, epoch N`."""
    return side if side == "teacher" else f"student, {f'epoch {epoch}' if epoch else 'initial'}"


def neighbour(found: Sequence[str], current: str, step: int) -> str:
    """The item so many places on, staying inside; the first if the current one is not there."""
    if not found:
        return ""
    at = found.index(current) + step if current in found else 0
    return found[min(max(at, 0), len(found) - 1)]
