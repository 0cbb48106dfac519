"""Sample traces until each problem has K good ones: correct for the teacher, wrong for the student, none a near-copy.

Steps 1 and 2 of the paper. Every draw is graded and returned, kept or not, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from labkit.answers import Grader, grade
from labkit.config import RunConfig
from labkit.diversity import NearCopies
from labkit.generation import Generator, Request, Settings
from labkit.prompts import prompt, worked_examples
from labkit.records import Completion, Outcome, Problem, Reading, Trace


@dataclass(frozen=True)
class Job:
    """What is sampled: by whom, at which epoch, and whether correct or wrong traces are kept."""

    stage: str  # file stem under traces/, and part of every draw's address: "teacher", "student-0", ...
    side: str  # "teacher" or "student"
    epoch: int
    want: str  # "correct" or "wrong"


@dataclass
class _Case:
    """One problem on its way: how many traces it still needs, and what was drawn."""

    problem: Problem
    wanted: int
    copies: NearCopies
    traces: list[Trace]
    exhausted: bool = False

    @property
    def kept(self) -> int:
        return len(self.copies.kept)


def sample(
    generator: Generator,
    problems: Sequence[Problem],
    wanted: Sequence[int],
    job: Job,
    config: RunConfig,
    on_draw: Callable[[int], None] | None = None,
    grader: Grader = grade,
) -> Iterator[list[Trace]]:
    """Traces of all draws, one list per chunk of `config.chunk` problems, in the order of problems and draws.

    `wanted`: kept traces asked for, per problem; a problem that has used up `config.max_draws` keeps what it has.
    `on_draw` is called with the number of draws finished since its last call. `grader` says what is correct.
    """
    for start in range(0, len(problems), config.chunk):
        part = slice(start, start + config.chunk)
        cases = [
            _Case(problem, n, NearCopies(config.rouge_threshold), [])
            for problem, n in zip(problems[part], wanted[part], strict=True)
        ]
        while _round(generator, cases, job, config, on_draw, grader):
            pass
        yield [trace for case in cases for trace in case.traces]


def _round(
    generator: Generator,
    cases: list[_Case],
    job: Job,
    config: RunConfig,
    on_draw: Callable[[int], None] | None,
    grader: Grader,
) -> bool:
    """Draw once more for every case that is short; False when none is."""
    short = [(case, n) for case in cases if (n := _draws(case, config.max_draws))]
    if not short:
        return False
    requests = [_request(case, n, job, config) for case, n in short]
    said = generator.generate(requests, settings(config), on_draw)
    for (case, n), completions in zip(short, said, strict=True):
        for completion in completions:
            case.traces.append(_judge(case, completion, grader(completion, case.problem), generator.name, job, config))
        case.exhausted = len(completions) < n  # recorded traces run out
    return True


def _draws(case: _Case, limit: int) -> int:
    """Draws of the next round: what is missing over the acceptance so far, at most twice it and the budget."""
    missing, drawn = case.wanted - case.kept, len(case.traces)
    if missing <= 0 or case.exhausted:
        return 0
    expected = math.ceil(missing * drawn / max(case.kept, 1)) if drawn else missing
    return min(max(missing, min(expected, 2 * missing)), limit - drawn)


def _request(case: _Case, n: int, job: Job, config: RunConfig) -> Request:
    first = len(case.traces)
    return Request(
        problem=case.problem.id,
        question=prompt(case.problem, config.instruction),
        seeds=tuple(f"{config.seed}/{job.stage}/{case.problem.id}/{draw}" for draw in range(first, first + n)),
        shots=worked_examples(case.problem, config.shots, config.instruction),
    )


def settings(config: RunConfig, greedy: bool = False) -> Settings:
    """The generation settings of a run's sampling, or of its greedy evaluation."""
    if greedy:
        return Settings(temperature=0.0, max_new_tokens=config.max_new_tokens)
    return Settings(temperature=config.temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens)


def _judge(
    case: _Case, completion: Completion, graded: tuple[Outcome, Reading], model: str, job: Job, config: RunConfig
) -> Trace:
    outcome, reading = graded
    trace = Trace(
        problem=case.problem.id,
        side=job.side,
        model=model,
        epoch=job.epoch,
        draw=len(case.traces),
        text=completion.text,
        outcome=outcome,
        answer=reading.answer,
        rule=reading.rule,
        span=reading.span,
        strict=reading.strict,
        finish=completion.finish,
        tokens=completion.tokens,
        logprob=None if completion.logprob is None else round(completion.logprob, 6),
        temperature=config.temperature,
        use="other",
    )
    if not _wanted(trace, job.want, config.unparsed_negatives):
        return trace
    if job.want == "correct" and not trace.strict:
        return replace(trace, use="loose")  # right by a last number that happened to stand there: no example to follow
    if case.kept >= case.wanted:
        return replace(trace, use="surplus")
    kept, rouge = case.copies.admit(trace.text)
    return replace(trace, use="kept" if kept else "near-copy", rouge=round(rouge, 4))


def _wanted(trace: Trace, want: str, unparsed: bool) -> bool:
    if want == "correct":
        return trace.outcome == "correct"
    return trace.outcome == "wrong" or (unparsed and trace.outcome in {"unparsed", "truncated"})


def pools(traces: Sequence[Trace]) -> dict[str, list[Trace]]:
    """Problem id -> its kept traces, in the order of drawing."""
    found: dict[str, list[Trace]] = {}
    for trace in traces:
        if trace.use == "kept":
            found.setdefault(trace.problem, []).append(trace)
    return found


def tally(traces: Sequence[Trace], wanted: dict[str, int]) -> dict[str, object]:
    """Counts of a stage for people: draws, uses, outcomes, and the problems that got fewer traces than wanted."""
    kept = {problem: len(pool) for problem, pool in pools(traces).items()}
    short = [problem for problem, n in wanted.items() if kept.get(problem, 0) < n]
    return {
        "draws": len(traces),
        **{use: sum(trace.use == use for trace in traces) for use in ("kept", "near-copy", "loose", "surplus")},
        **{
            name: sum(trace.outcome == name for trace in traces)
            for name in ("correct", "wrong", "unparsed", "truncated")
        },
        "tokens": sum(trace.tokens for trace in traces),
        "nats_per_token": _surprise(traces),
        "short": len(short),
        "empty": sum(not kept.get(problem) for problem in short),
        "short_problems": short[:20],
    }


def _surprise(traces: Sequence[Trace]) -> float | None:
    """Mean -log-probability per token, in nats, of what was said: an estimate of the speaker's entropy per token where
    it sampled at temperature 1. None without log-probabilities."""
    told = [(trace.tokens, trace.logprob) for trace in traces if trace.logprob is not None]
    return round(-sum(n * logp for n, logp in told) / max(sum(n for n, _ in told), 1), 4) if told else None
