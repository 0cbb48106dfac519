"""The Accuracy tab as HTML: score tables, the paired comparison with its verdict, and the questions that flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from app import pieces, store
from app.pieces import text
from labkit import compare, published, report_tables
from labkit.compare import Comparison
from labkit.records import Answer, Problem, Score

PAGE = 40
DIRECTIONS = ("all flips", "only B right", "only A right")


def final(where: Path, epoch: int | None = None) -> list[Score]:
    """The scores of an epoch, the last by default."""
    scores = store.scores(where)
    at = max((score.epoch for score in scores), default=0) if epoch is None else epoch
    return [score for score in scores if score.epoch == at]


def columns(runs_dir: Path, name: str, others: Sequence[str]) -> dict[str, tuple[Path, list[Score]]]:
    """Label -> (run, scores) of the bars: the run before and after training, and the others after."""
    where = store.folder(runs_dir, name)
    epochs = sorted({score.epoch for score in store.scores(where)})
    shown = {
        f"{name} · epoch {epoch}": (where, final(where, epoch)) for epoch in dict.fromkeys([*epochs[:1], *epochs[-1:]])
    }
    for other in others:
        folder = store.folder(runs_dir, other)
        if scores := final(folder):
            shown[f"{other} · epoch {scores[0].epoch}"] = (folder, scores)
    return shown


def paper(shown: Mapping[str, tuple[Path, list[Score]]]) -> dict[tuple[str, str], float]:
    """(label, benchmark) -> the published accuracy, for runs of the paper's students on its benchmarks."""
    return {
        (label, benchmark): value
        for label, (where, scores) in shown.items()
        for benchmark, value in published.beside(store.config(where), scores).items()
    }


def score_table(shown: Mapping[str, tuple[Path, list[Score]]]) -> str:
    """The bars in numbers."""
    table = report_tables.scores({label: scores for label, (_, scores) in shown.items()})
    return f"<details><summary>The same in numbers</summary>{table}</details>"


def points(runs_dir: Path) -> list[tuple[str, str]]:
    """(label, value) of everything that can be compared: `NAME@EPOCH`."""
    found = []
    for name, where in store.folders(runs_dir).items():
        for epoch in sorted({score.epoch for score in store.scores(where)}, reverse=True):
            found.append((f"{name} · epoch {epoch}{' (before training)' if not epoch else ''}", f"{name}@{epoch}"))
    return found


def answers(runs_dir: Path, point: str) -> dict[str, Answer]:
    """Problem id -> answer of `NAME@EPOCH`; raises `LabError` if that is not there."""
    name, _, epoch = point.rpartition("@")
    where = store.folder(runs_dir, name)
    return _answers(where, int(epoch), store.stamp(where / f"answers/epoch-{epoch}.jsonl"))


@lru_cache(maxsize=16)
def _answers(where: Path, epoch: int, stamp: str) -> dict[str, Answer]:
    return compare.last_answers(where, epoch)


@lru_cache(maxsize=32)
def _compared(runs_dir: Path, a: str, b: str, stamp: str) -> tuple[list[Comparison], list[tuple[Answer, Answer]]]:
    first, second = answers(runs_dir, a), answers(runs_dir, b)
    return compare.compare(first, second), compare.flips(first, second)


def compared(runs_dir: Path, a: str, b: str) -> tuple[list[Comparison], list[tuple[Answer, Answer]]]:
    """The comparison of two points and the flips; raises `LabError` if they share no question."""
    paths = [store.folder(runs_dir, point.rpartition("@")[0]) / "commits.json" for point in (a, b)]
    return _compared(runs_dir, a, b, store.stamp(*paths))


def comparison(rows: Sequence[Comparison]) -> str:
    """Verdict and table."""
    finding, told = compare.verdict(rows[-1])
    return f'<div class="panel"><p><b>{finding}</b> {told}</p>{report_tables.comparison(rows)}</div>'


def chosen(flips: Sequence[tuple[Answer, Answer]], direction: str) -> list[tuple[Answer, Answer]]:
    """The flips of one direction."""
    if direction == DIRECTIONS[0]:
        return list(flips)
    side = 1 if direction == DIRECTIONS[1] else 0
    return [pair for pair in flips if pair[side].outcome == "correct"]


def flip_list(problems: Mapping[str, Problem], flips: Sequence[tuple[Answer, Answer]], current: str, page: int) -> str:
    """A page of the flips, each to be picked."""
    if not flips:
        return pieces.empty("No flips", "No question was answered rightly by just one of the two.")
    items = ""
    for first, second in flips[page * PAGE : (page + 1) * PAGE]:
        problem = problems.get(first.problem)
        turn = f"{pieces.outcome(first.outcome)} → {pieces.outcome(second.outcome)}"
        items += pieces.item(first.problem, text(first.problem), turn, problem.question if problem else "")
    told = f"{len(flips):,} questions"
    return pieces.paged("flips", items, told, page, (len(flips) - 1) // PAGE, ("flip-list", current))


def flip(problem: Problem, first: Answer, second: Answer, a: str, b: str) -> str:
    """Both answers to one question, side by side."""
    cards = "".join(_card(name, point, one) for name, point, one in (("A", a, first), ("B", b, second)))
    facts = pieces.facts(problem=problem.id, gold=problem.answer)
    return f'<div class="panel">{pieces.question(problem)}{facts}</div><div class="sides">{cards}</div>'


def _card(name: str, point: str, one: Answer) -> str:
    read = f"read {text(one.answer)} by {text(one.rule)}" if one.answer is not None else "no answer read"
    finish = "ended by itself" if one.finish == "stop" else "cut at the limit"
    return (
        f'<section><article class="trace {one.outcome}" tabindex="-1"><header><b>{name}</b>'
        f"{pieces.outcome(one.outcome)}"
        f"<span>{read}</span></header>{pieces.said(one.text, one.span)}<footer>"
        f"{text(point.replace('@', ', epoch '))} · {finish} · {one.tokens} tokens · "
        "greedy</footer></article></section>"
    )
