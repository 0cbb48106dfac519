"""The nouns of the lab: frozen, JSON-able, and the only things that cross a file boundary.

A `Problem` is asked; a generator says a `Completion`; sampling grades it into a `Trace`; two traces of
one problem make a `Triplet`; a graded greedy answer is an `Answer`; a benchmark's answers add up to a `Score`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

SCHEMA = 1  # version written into every record; a reader refuses a newer one by name

Kind = Literal["number", "choice", "boolean", "text"]
Outcome = Literal["correct", "wrong", "unparsed", "truncated"]
OUTCOMES: tuple[Outcome, ...] = ("correct", "wrong", "unparsed", "truncated")


class LabError(Exception):
    """Bad input, said in one line for a person: what, where, and what to do. The CLI exits with 2 on it."""


@dataclass(frozen=True)
class Problem:
    """One question of a benchmark, whatever columns it came from."""

    id: str  # "gsm8k/train/17": benchmark, split, row of the source counted from 0
    benchmark: str
    split: str
    question: str
    kind: Kind
    answer: str  # gold: a decimal, a label ("B"), an option's text where labels is empty, "yes"/"no", or text
    choices: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()  # "A", "B", ...; empty where options are answered by their text


@dataclass(frozen=True)
class Completion:
    """What a model said after a prompt."""

    text: str
    finish: Literal["stop", "length"]  # "length": the token limit cut it
    tokens: int  # generated tokens, the end token included
    logprob: float | None = None  # mean log-probability per generated token at temperature 1, in nats


@dataclass(frozen=True)
class Reading:
    """The final answer found in a completion. `answer` is None when no rule was sure."""

    answer: str | None
    rule: str | None  # name of the rule that found it
    span: tuple[int, int] | None  # characters of the completion that hold the answer
    strict: bool  # an explicit final answer, not a last number or letter that happened to stand there


@dataclass(frozen=True)
class Trace:
    """One sampled chain of thought with its grade and its provenance."""

    problem: str  # Problem.id
    side: Literal["teacher", "student"]
    model: str
    epoch: int  # student: epochs trained when it spoke; 0 is the initial student
    draw: int  # 0, 1, ...: with (seed, side, epoch, problem) the address of its random numbers
    text: str
    outcome: Outcome
    answer: str | None
    rule: str | None
    span: tuple[int, int] | None
    strict: bool
    finish: str
    tokens: int
    logprob: float | None
    temperature: float
    use: Literal["kept", "near-copy", "loose", "surplus", "other"]  # why it is, or is not, in the pool
    rouge: float | None = None  # highest ROUGE-L F1 with a trace kept before it
    schema: int = SCHEMA


@dataclass(frozen=True)
class Triplet:
    """(prompt, chosen, rejected). `rejected` is None where no negative exists: only the NLL term is left."""

    problem: str
    epoch: int  # the epoch of training that uses it, from 1
    draw: int
    chosen: str
    rejected: str | None
    chosen_draw: int  # Trace.draw of each side, to find it again under traces/
    rejected_draw: int | None
    rejected_side: Literal["teacher", "student"] | None
    rejected_epoch: int | None  # the student's epoch that made the negative
    schema: int = SCHEMA


@dataclass(frozen=True)
class Answer:
    """A greedy answer to a test question, as it was said and as it was read."""

    problem: str
    benchmark: str
    split: str
    epoch: int
    gold: str
    text: str
    outcome: Outcome
    answer: str | None
    rule: str | None
    span: tuple[int, int] | None
    strict: bool
    finish: str
    tokens: int
    schema: int = SCHEMA


@dataclass(frozen=True)
class Score:
    """Accuracy on one benchmark. Unparsed and truncated answers count as wrong; `low`, `high` are Wilson's 95 %."""

    benchmark: str
    split: str
    epoch: int  # 0 is before training
    correct: int
    wrong: int
    unparsed: int
    truncated: int
    total: int
    accuracy: float
    low: float
    high: float
    strict_correct: int  # correct by a strict rule; the rest were read loosely
    mean_tokens: float
    schema: int = SCHEMA


Record = TypeVar("Record", Problem, Completion, Trace, Triplet, Answer, Score)


def to_json(record: Any) -> str:
    """One JSON line, without the newline, keys in field order."""
    return json.dumps(dataclasses.asdict(record), ensure_ascii=False)


def from_json(kind: type[Record], row: dict[str, Any]) -> Record:
    """The record of `row`; raises `LabError` for a newer schema, or fields missing or unknown."""
    if row.get("schema", SCHEMA) > SCHEMA:
        raise LabError(
            f"schema {row['schema']} was written by a newer labkit (this one reads up to {SCHEMA}): upgrade labkit"
        )
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in row.items()})
    except TypeError as error:
        raise LabError(f"not a {kind.__name__}: {error}") from None
