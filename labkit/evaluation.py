"""Greedy answers to test questions, graded four ways, added up to scores with Wilson intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from labkit.answers import Grader, grade
from labkit.config import RunConfig
from labkit.generation import Generator, Request
from labkit.prompts import prompt, worked_examples
from labkit.records import OUTCOMES, Answer, Completion, Problem, Score
from labkit.sampling import settings
from labkit.statistics import wilson


def answer(
    generator: Generator,
    problems: Sequence[Problem],
    epoch: int,
    config: RunConfig,
    on_answer: Callable[[int], None] | None = None,
    grader: Grader = grade,
) -> Iterator[list[Answer]]:
    """Greedy answers, one list per chunk of problems, in order. Chunks are larger than in sampling: one draw each."""
    size = config.chunk * config.k
    for start in range(0, len(problems), size):
        chunk = problems[start : start + size]
        requests = [
            Request(
                problem=problem.id,
                question=prompt(problem, config.instruction),
                seeds=("greedy",),
                shots=worked_examples(problem, config.shots, config.instruction),
            )
            for problem in chunk
        ]
        said = generator.generate(requests, settings(config, greedy=True), on_answer)
        yield [
            _graded(problem, completions[0], epoch, grader) for problem, completions in zip(chunk, said, strict=True)
        ]


def _graded(problem: Problem, completion: Completion, epoch: int, grader: Grader) -> Answer:
    outcome, reading = grader(completion, problem)
    return Answer(
        problem=problem.id,
        benchmark=problem.benchmark,
        split=problem.split,
        epoch=epoch,
        gold=problem.answer,
        text=completion.text,
        outcome=outcome,
        answer=reading.answer,
        rule=reading.rule,
        span=reading.span,
        strict=reading.strict,
        finish=completion.finish,
        tokens=completion.tokens,
    )


def scores(answers: Sequence[Answer]) -> list[Score]:
    """One score per benchmark, in the order in which the answers name them; answers of one epoch."""
    groups: dict[str, list[Answer]] = {}
    for one in answers:
        groups.setdefault(one.benchmark, []).append(one)
    return [_score(group) for group in groups.values()]


def _score(group: list[Answer]) -> Score:
    outcomes = Counter(one.outcome for one in group)
    low, high = wilson(outcomes["correct"], len(group))
    return Score(
        benchmark=group[0].benchmark,
        split=group[0].split,
        epoch=group[0].epoch,
        **{name: outcomes[name] for name in OUTCOMES},
        total=len(group),
        accuracy=round(outcomes["correct"] / len(group), 6),
        low=round(low, 6),
        high=round(high, 6),
        strict_correct=sum(one.outcome == "correct" and one.strict for one in group),
        mean_tokens=round(sum(one.tokens for one in group) / len(group), 2),
    )
