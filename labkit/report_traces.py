"""What the models of a run said, as sections of a report: traces and their diversity, pairs, answers that changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from labkit import diversity, figures, report_tables, runs, why
from labkit.markup import differences, number, outcome, question, said, side, spans, table, text
from labkit.records import OUTCOMES, Answer, Problem, Trace, Triplet
from labkit.report_page import chart, fold, note
from labkit.report_run import Run

SAID = 3000  # characters of one text that a report shows
MOST = 200  # questions whose traces are compared with each other; more would take minutes and change no digit


def traces(run: Run) -> str:
    """What was sampled, how different it is, how often each question is solved."""
    stages = {path.stem: runs.records(run.folder, f"traces/{path.name}", Trace) for path in _ordered(run, "traces")}
    stages = {_stage(found[0]): found for found in stages.values() if found}
    if not stages:
        return ""
    head = ["traces", "draws", *(f"{figures.SIGNS[name]} {name}" for name in OUTCOMES), "kept", "near-copies"]
    counts = [[text(label), *_counts(found)] for label, found in stages.items()]
    names = ["traces", "kept", "per question", "ROUGE-L", "distinct-2", "self-BLEU", "words", "answers, bits"]
    rows = [[text(label), *_diversity(found)] for label, found in stages.items()]
    draws = {label: _first_draws(found, run.config.k) for label, found in stages.items()}
    rates = {label: [c / n for n, c in cases] for label, cases in draws.items()}
    told = (
        f"Of the kept traces of up to {MOST} questions, averaged over questions: ROUGE-L between two of them, share of "
        "distinct word pairs, self-BLEU (high ROUGE-L and self-BLEU mean alike), length, and the entropy of all drawn "
        f"answers. A trace above ROUGE-L {run.config.rouge_threshold:g} with a kept one was thrown away."
    )
    return (
        table(head, counts)
        + "<h3>How different they are</h3>"
        + table(names, rows)
        + note(told)
        + '<div class="two">'
        + chart(
            figures.solve_rates(rates), f"How many questions are solved how often, first {run.config.k} draws of each."
        )
        + chart(
            figures.pass_curve(draws, most=run.config.k),
            "Share of questions with a right answer among k draws (unbiased).",
        )
        + "</div>"
    )


def _ordered(run: Run, kind: str) -> list[Path]:
    """The run's files of a kind: the teacher's first, then by epoch."""
    return sorted(
        (run.folder / kind).glob("*.jsonl"), key=lambda path: (len(path.stem) if "-" in path.stem else 0, path.stem)
    )


def _stage(trace: Trace) -> str:
    return trace.side if trace.side == "teacher" else f"student, {f'epoch {trace.epoch}' if trace.epoch else 'initial'}"


def _counts(found: Sequence[Trace]) -> list[str]:
    outcomes = [f"{sum(trace.outcome == name for trace in found):,}" for name in OUTCOMES]
    uses = [f"{sum(trace.use == name for trace in found):,}" for name in ("kept", "near-copy")]
    return [f"{len(found):,}", *outcomes, *uses]


def _by_problem(found: Sequence[Trace]) -> dict[str, list[Trace]]:
    groups: dict[str, list[Trace]] = {}
    for trace in found:
        groups.setdefault(trace.problem, []).append(trace)
    return groups


def _diversity(found: Sequence[Trace]) -> list[str]:
    """Means over questions of what their kept traces have in common."""
    groups = list(_by_problem(found).values())[:MOST]
    kept = [[trace.text for trace in group if trace.use == "kept"] for group in groups]
    several = [texts for texts in kept if len(texts) > 1]
    alike = [
        np.mean([row[j] for i, row in enumerate(diversity.rouge_matrix(texts)) for j in range(i)]) for texts in several
    ]
    words = [len(diversity.words(one)) for texts in kept for one in texts]
    entropy = [diversity.answer_entropy([trace.answer for trace in group]) for group in groups]
    return [
        f"{len(words):,}", number(_mean([len(texts) for texts in kept]), 1), number(_mean(alike), 2),
        number(_mean([diversity.distinct_n(texts, 2) for texts in several]), 2),
        number(_mean([diversity.self_bleu(texts) for texts in several]), 2),
        f"{np.mean(words):.0f} ± {np.std(words):.0f}" if words else "–", number(_mean(entropy), 2),
    ]  # fmt: skip


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _first_draws(found: Sequence[Trace], most: int) -> list[tuple[int, int]]:
    """(draws, correct) per question over its first `most` draws: later ones come from hard questions only."""
    early = [[trace for trace in group if trace.draw < most] for group in _by_problem(found).values()]
    return [(len(group), sum(trace.outcome == "correct" for trace in group)) for group in early if group]


def pairs(run: Run) -> str:
    """The mixed policy by epoch, and the first pair of each benchmark of the last epoch, differing words marked."""
    rows = why.policy(run.folder)
    if not rows:
        return ""
    policy = ""
    if run.config.method == "orpo":
        policy = chart(figures.policy_bars(rows), "Where the rejected sides came from, and what was missing.")
        policy += fold("The same in numbers", report_tables.policy(rows))
    last = runs.records(run.folder, f"triplets/epoch-{len(rows)}.jsonl", Triplet)
    return policy + _examples(run, last)


def _examples(run: Run, last: Sequence[Triplet]) -> str:
    firsts: dict[str, Triplet] = {}
    for one in last:
        name = run.problems[one.problem].benchmark if one.problem in run.problems else ""
        if name not in firsts or (firsts[name].rejected is None and one.rejected is not None):
            firsts[name] = one
    body = "".join(_example(run, one) for one in list(firsts.values())[:6])
    told = f"The first pair of each benchmark in epoch {last[0].epoch}. Marked: words that only this side has."
    return f"<h3>Pairs as the student saw them</h3>{note(told)}{body}"


def _example(run: Run, one: Triplet) -> str:
    chosen, rejected = _cut(one.chosen), _cut(one.rejected or "")
    marks = differences(chosen, rejected) if one.rejected is not None else ([], [])
    cards = _card(
        "correct", f"<b>Chosen</b>{side('teacher')}",
        f'<div class="said" dir="auto">{spans(chosen, [(a, b, "add") for a, b in marks[0]])}</div>',
        f"{text(run.config.teacher)} · draw {one.chosen_draw}",
    )  # fmt: skip
    if one.rejected is not None:
        where = run.config.teacher if one.rejected_side == "teacher" else run.config.student
        cards += _card(
            "wrong", f"<b>Rejected</b>{side(one.rejected_side or '', one.rejected_epoch)}",
            f'<div class="said" dir="auto">{spans(rejected, [(a, b, "cut") for a, b in marks[1]])}</div>',
            f"{text(where)} · draw {one.rejected_draw}",
        )  # fmt: skip
    return _pair(run.problems.get(one.problem), one.problem, cards)


# --- answers that changed ------------------------------------------------------------------------------------------


def flips(
    problems: Mapping[str, Problem], pairs: Sequence[tuple[Answer, Answer]], labels: tuple[str, str], by: str = ""
) -> str:
    """Two questions of each direction that just one of two evaluations got right: the first ones."""
    gained = [pair for pair in pairs if pair[1].outcome == "correct"]
    lost = [pair for pair in pairs if pair[0].outcome == "correct"]
    shown = [*_spread(gained, 2), *_spread(lost, 2)]
    if not shown:
        return note("No question was answered rightly by just one of the two.")
    told = note(
        f"Answered rightly only {by}{text(labels[1])}: {len(gained)} of the questions; only {by}{text(labels[0])}: "
        f"{len(lost)}. Shown: the first of each kind from two benchmarks. The answer that was read is marked."
    )
    cards = []
    for pair in shown:
        both = "".join(_answer(label, one) for label, one in zip(labels, pair, strict=True))
        cards.append(_pair(problems.get(pair[0].problem), pair[0].problem, both))
    return told + "".join(cards)


def _spread(pairs: Iterable[tuple[Answer, Answer]], most: int) -> list[tuple[Answer, Answer]]:
    """The first pair of each benchmark."""
    firsts = {pair[0].benchmark: pair for pair in reversed(list(pairs))}
    return list(firsts.values())[::-1][:most]


def _answer(label: str, one: Answer) -> str:
    read_ = f"read {text(one.answer)} by {text(one.rule)}" if one.answer is not None else "no answer was read"
    span = one.span if one.span and one.span[1] <= SAID else None
    return _card(one.outcome, f"<b>{text(label)}</b>{outcome(one.outcome)}", said(_cut(one.text), span), read_)


def _cut(raw: str) -> str:
    return raw if len(raw) <= SAID else f"{raw[:SAID]} … ({len(raw) - SAID:,} more characters)"


def _card(kind: str, head: str, body: str, source: str) -> str:
    return f'<article class="{text(kind)}"><header>{head}</header>{body}<p class="from">{source}</p></article>'


def _pair(problem: Problem | None, name: str, cards: str) -> str:
    asked = question(problem) if problem else ""
    return f'<div class="pair"><p class="where">{text(name)}</p>{asked}<div class="cards">{cards}</div></div>'
