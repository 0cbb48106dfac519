"""The Accuracy tab as HTML: score tables, the paired comparison with its verdict, and the questions that flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from app import pieces, store
from app.pieces import text
from labkit import compare, published, statistics
from labkit.compare import Comparison
from labkit.figures import percent
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


def chance(where: Path) -> dict[str, float]:
    """Accuracy of guessing, per benchmark, on the run's evaluated questions."""
    return statistics.chance(problem for problem in store.problems(where).values() if problem.split != "train")


def paper(shown: Mapping[str, tuple[Path, list[Score]]]) -> dict[tuple[str, str], float]:
    """(label, benchmark) -> the published accuracy, for runs of the paper's students on its benchmarks."""
    found = {}
    for label, (where, scores) in shown.items():
        config = store.config(where)
        for score in scores:
            method = "zero-shot" if score.epoch == 0 else config.policy
            if value := published.accuracy(config.student, method, score.benchmark):
                found[label, score.benchmark] = value
    return found


def score_table(shown: Mapping[str, tuple[Path, list[Score]]]) -> str:
    """The bars in numbers."""
    rows = []
    for label, (_, scores) in shown.items():
        for score in scores:
            counts = [f"{getattr(score, name):,}" for name in ("correct", "wrong", "unparsed", "truncated", "total")]
            strict = percent(score.strict_correct / max(score.total, 1))
            span = f"{100 * score.low:.1f} – {100 * score.high:.1f}"
            rows.append(
                [text(label), text(score.benchmark), *counts, f"<b>{percent(score.accuracy)}</b>", span, strict]
            )
        mean = sum(score.accuracy for score in scores) / max(len(scores), 1)
        rows.append([text(label), "<b>mean</b>", *[""] * 5, f"<b>{percent(mean)}</b>", "", ""])
    signs = [f"{pieces.SIGNS[name]} {name}" for name in ("correct", "wrong", "unparsed", "truncated")]
    table = pieces.table(["run", "benchmark", *signs, "total", "accuracy", "95 %", "by strict rules"], rows)
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


def comparison(rows: Sequence[Comparison], a: str, b: str) -> str:
    """Verdict and table."""
    head = ["benchmark", "questions", "A", "B", "B − A", "95 % (paired bootstrap)", "only A right", "only B right",
            "p (exact McNemar)", "p (Holm)"]  # fmt: skip
    cells = [_row(row) for row in rows]
    whole = rows[-1]
    table = pieces.table(head, cells, last_is_total=len(rows) > 1)
    return f'<div class="panel"><p>{_verdict(whole, a, b)}</p>{table}</div>'


def _row(row: Comparison) -> list[str]:
    return [
        text(row.benchmark), f"{row.questions:,}", percent(row.first), percent(row.second), _signed(row.difference),
        f"{_signed(row.low)} … {_signed(row.high)}", str(row.only_first), str(row.only_second), _p(row.p),
        "" if row.p_holm is None else _p(row.p_holm),
    ]  # fmt: skip


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _p(value: float) -> str:
    return "&lt; .001" if value < 0.001 else f"{value:.3f}"


def _verdict(row: Comparison, a: str, b: str) -> str:
    points = _signed(row.difference)
    span = f"95 % interval {_signed(row.low)} to {_signed(row.high)}"
    if row.low > 0 or row.high < 0:
        better, size = ("B", row.difference) if row.difference > 0 else ("A", -row.difference)
        return (
            f"<b>{better} is better</b> by {100 * size:.1f} points on average over {row.questions:,} shared "
            f"questions ({span})."
        )
    return (
        f"<b>No difference shown</b>: B − A is {points} points over {row.questions:,} shared questions, and the "
        f"{span} holds zero."
    )


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
        items += (
            f'<button class="item" data-pick="{text(first.problem)}"><span class="where"><span>'
            f"{text(first.problem)}</span><span>"
            f"{pieces.outcome(first.outcome)} → {pieces.outcome(second.outcome)}</span></span>"
            f'<span class="what">{text(problem.question[:200] if problem else "")}</span></button>'
        )
    last = (len(flips) - 1) // PAGE
    off = ("disabled" if page <= 0 else ""), ("disabled" if page >= last else "")
    return (
        f'<div class="scroller" tabindex="0" role="group" aria-label="flips">{items}</div><div class="pager">'
        f'<button data-pick="page:{page - 1}" {off[0]}>‹ Back</button><span>{len(flips):,} questions · page '
        f"{page + 1} of "
        f'{last + 1}</span><button data-pick="page:{page + 1}" {off[1]}>More ›</button></div>'
        + pieces.mark("flip-list", current)
    )


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
