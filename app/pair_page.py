"""The Pairs tab as HTML: the list of an epoch's pairs, and one pair with its differences, sources and step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from app import indexed, pieces, store
from app.pieces import text
from app.trace_page import stage_of
from labkit import triplets, why
from labkit.markup import differences
from labkit.records import Trace, Triplet

PAGE = 40
SOURCES = ("all", "initial student", "newest student", "teacher", "none")


def choose(where: Path, epoch: int, source: str, q: str) -> list[int]:
    """Lines of an epoch's triplets that match: where the negative came from, and words of either side."""
    found = indexed.triplets(where, epoch)
    columns = found.columns
    mask = np.ones(len(found), bool)
    if source != SOURCES[0]:
        kinds = {
            "none": columns["source"] < 0,
            "teacher": columns["teacher"] == 1,
            "initial student": (columns["source"] == 0) & (columns["teacher"] == 0),
            "newest student": columns["source"] > 0,
        }
        mask &= kinds[source]
    if q:
        wanted = {i for i, name in enumerate(found.names) if q.lower() in name.lower()}
        mask &= indexed.containing(found, q) | np.isin(columns["problem"], list(wanted))
    return np.flatnonzero(mask).tolist()


def listing(where: Path, epoch: int, lines: Sequence[int], current: int, page: int) -> str:
    """A page of the list of pairs."""
    if not lines:
        return pieces.empty("No pair matches", "Take a filter off, or choose another epoch.")
    problems = store.problems(where)
    part = lines[page * PAGE : (page + 1) * PAGE]
    items = ""
    for line, one in zip(part, indexed.read(indexed.triplets(where, epoch), Triplet, np.array(part)), strict=True):
        where_ = f"{text(one.problem.replace('/train/', ' '))} · {one.draw}"
        items += pieces.item(str(line), where_, _source(one), problems[one.problem].question)
    told = f"{len(lines):,} pairs"
    return pieces.paged("pairs", items, told, page, (len(lines) - 1) // PAGE, ("pair-list", str(current)))


def _source(one: Triplet) -> str:
    if one.rejected is None:
        return "no negative"
    return pieces.side(one.rejected_side or "", one.rejected_epoch)


def detail(where: Path, epoch: int, line: int) -> str:
    """One pair: the question, chosen beside rejected with differing words marked, and where each came from."""
    one = indexed.triplet(indexed.triplets(where, epoch), line)
    traces = indexed.traces_of(where, one.problem)
    chosen = _trace(traces, "teacher", 0, one.chosen_draw, one.chosen)
    rejected = _trace(traces, one.rejected_side, one.rejected_epoch, one.rejected_draw, one.rejected)
    marks = differences(one.chosen, one.rejected) if one.rejected is not None else ([], [])
    told = pieces.facts(
        problem=one.problem, epoch=epoch, pair=one.draw, used_at_step=step(where, epoch, line),
        phi=f"{store.config(where).phi:g}",
    )  # fmt: skip
    other = (
        _card(where, "rejected", one.rejected, rejected, marks[1])
        if one.rejected is not None
        else pieces.empty("No rejected side", "No wrong answer was found for this question: only the NLL term is left.")
    )
    return (
        f'<div class="panel">{pieces.question(store.problems(where)[one.problem])}{told}</div><div class="sides">'
        f"<section>{_card(where, 'chosen', one.chosen, chosen, marks[0])}</section><section>{other}</section></div>"
        '<p class="caption" style="margin-top:8px">Marked: words that only this side has.</p>'
    )


def _trace(
    traces: Sequence[Trace], side: str | None, epoch: int | None, draw: int | None, said: str | None
) -> Trace | None:
    for trace in traces:
        if (trace.side, trace.draw, trace.text) == (side, draw, said) and trace.epoch == (epoch or 0):
            return trace
    return None


def _card(where: Path, name: str, said: str, trace: Trace | None, marks: list[tuple[int, int]]) -> str:
    kind = "add" if name == "chosen" else "cut"
    body = pieces.spans(said, [(start, end, kind) for start, end in marks])
    source = "its trace is not in this run's folder"
    grade = ""
    if trace is not None:
        config = store.config(where)
        grade = pieces.outcome(trace.outcome)
        logprob = "" if trace.logprob is None else f" · log-prob when drawn {pieces.number(trace.logprob)}"
        source = (
            f"{pieces.side(trace.side, trace.epoch)} · draw {trace.draw} · answer {text(trace.answer)} by "
            f"{text(trace.rule)} · "
            f"{trace.tokens} tokens{logprob} · T {trace.temperature:g} · {text(trace.model)} · "
            f"seed {config.seed}/{stage_of(trace)}/{trace.draw}"
        )
    return (
        f'<article class="trace {trace.outcome if trace else ""}" tabindex="-1"><header><b>{name}</b>{grade}</header>'
        f'<div class="said" dir="auto" tabindex="0" role="group" aria-label="{name}">{body}</div><footer>'
        f"{source}</footer></article>"
    )


def step(where: Path, epoch: int, line: int) -> str | None:
    """The optimiser step that used a pair, counted over the whole run; None where long rows were left out."""
    if any(event["epoch"] <= epoch for event in store.events(where, "too long")):
        return None
    before = 0
    for earlier in range(1, epoch + 1):
        found = indexed.triplets(where, earlier)
        taken = _steps(where, earlier, len(found))
        if earlier == epoch:
            return str(before + taken[line]) if line in taken else None
        before += max(taken.values(), default=0)
    return None


@lru_cache(maxsize=64)
def _steps(where: Path, epoch: int, rows: int) -> dict[int, int]:
    found = indexed.triplets(where, epoch)
    names = [found.names[i] for i in found.columns["problem"][:rows]]
    steps = triplets.steps(names, store.config(where), epoch)
    return {row: number for number, step in enumerate(steps, 1) for row in step}


def policy_rows(where: Path) -> list[dict[str, float]]:
    """Per epoch: initial and refreshed negatives, and what the fresh sampling dropped and lacked."""
    sampled = {event["stage"]: event for event in store.events(where, "sampled")}
    rows = []
    for epoch in indexed.epochs(where):
        source = indexed.triplets(where, epoch).columns["source"]
        kinds = {"initial": source == 0, "fresh": source > 0, "without_negative": source < 0}
        rows.append(why.policy_row(epoch, {kind: int(which.sum()) for kind, which in kinds.items()}, sampled))
    return rows
