"""The nouns of the lab: frozen, JSON-able, and the only things that cross a file boundary.

A `Problem` is asked; a generator says a `Completion`; sampling grades it into a `Trace`; two traces of
one problem make a `Triplet`; a graded greedy answer is an `Answer`; a benchmark's answers add up to a `Score`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

SCHEMA = 1  # version written into every record; a reader refuses a newer one by name

Kind = Literal["number", "choice", "boolean", "text"]
Outcome = Literal["correct", "wrong", "unparsed", "truncated"]
OUTCOMES: tuple[Outcome, ...] = ("correct", "wrong", "unparsed", "truncated")


HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair: no text in UTF-8, and tokenizers refuse it


class LabError(Exception):
    """Bad input, said in one line for a person: what, where, and what to do. The CLI exits with 2 on it."""


_STEERING = re.compile(  # all but tab and new line
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 160, 160, 160


def shown(value: Any) -> str:
    """A value of unknown size as a message shows it: its repr in one line, cut in the middle where it is long."""
    text = " ".join(_SHORT.repr(value).split("\n"))
    return text if len(text) <= 200 else f"{text[:150]} ... {text[-40:]}"


def printable(text: str) -> str:
    """`text` for a terminal or a log: what would steer it (escapes, controls, turns of direction) as `\\x1b`."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


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
    finish: Literal["stop", "length"]
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
    finish: Literal["stop", "length"]
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


def from_json(kind: type[Record], row: Any) -> Record:
    """The record of `row`; raises `LabError` for a newer schema, and for fields missing, unknown or of another type."""
    if not isinstance(row, dict):
        raise LabError(f"not a {kind.__name__}: {shown(row)} is no object with named fields")
    schema = row.get("schema", SCHEMA)
    if type(schema) is int and schema > SCHEMA:
        raise LabError(f"schema {schema} was written by a newer labkit (this one reads up to {SCHEMA}): upgrade labkit")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    checks = _checks(kind)
    for name, value in values.items():
        if name not in checks:
            raise LabError(f"not a {kind.__name__}: it has no field {shown(name)}")
        if not checks[name](value):
            raise LabError(f"not a {kind.__name__}: {name} = {shown(row[name])}")
    try:
        return kind(**values)
    except TypeError as error:
        raise LabError(f"not a {kind.__name__}: {str(error).partition('() ')[2] or error}") from None


@cache
def _checks(kind: type[Record]) -> dict[str, Callable[[Any], bool]]:
    """For each field, whether a value is of the type that the class states."""
    return {name: _check(hint) for name, hint in get_type_hints(kind).items()}


def _check(hint: Any) -> Callable[[Any], bool]:
    if get_origin(hint) is Literal:
        return lambda value: value in get_args(hint)
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        size = None if get_args(hint)[-1] is ... else len(get_args(hint))
        return lambda value: (
            type(value) is tuple and size in (None, len(value)) and all(type(one) is item for one in value)
        )
    if parts := get_args(hint):  # X | None
        checks = [_check(part) for part in parts]
        return lambda value: any(fits(value) for fits in checks)
    kinds = {float: (float, int)}.get(hint, (hint,))
    return lambda value: type(value) in kinds
