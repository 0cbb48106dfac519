"""Which step of a pocket rationale is wrong: the worlds know every right argument, so they can tell.

A step is a sentence, and the line `Answer: X` is the last one. A step is right if one of the question's right arguments
says it, in either wording of the pocket worlds, or if it only states facts that are true. The first of the others is
the wrong step: where the argument leaves the way to the answer.
"""

from __future__ import annotations

import re
from functools import lru_cache

from labkit import pocket
from labkit.diversity import rouge_l, words
from labkit.pocket_choices import SIGNS
from labkit.pocket_words import plain
from labkit.records import Problem

Span = tuple[int, int]  # characters of a text

ALIKE = 0.5  # ROUGE-L F1 from which a step of another argument counts as saying the same thing
_STEP = re.compile(r"(?:(?<=[.?]) |\n)+")
_LACKS = re.compile(r"(?:but )?(?P<illness>[a-z ]+) does not bring (?P<sign>[a-z ]+)")


def steps(text: str) -> list[Span]:
    """The spans of a rationale's steps, in order."""
    ends = [*_STEP.finditer(text)]
    starts = [0, *(found.end() for found in ends)]
    spans = zip(starts, [*(found.start() for found in ends), len(text)], strict=True)
    return [(start, end) for start, end in spans if text[start:end].strip()]


def wrong_step(problem: Problem, text: str) -> Span | None:
    """The first step of a pocket problem's rationale that no right argument makes; None if there is no such step.

    Raises `LabError` for a problem that is not of a pocket benchmark.
    """
    known, facts = _right(problem)
    return next((span for span in steps(text) if not _is_right(_said(text, span), known, facts, problem)), None)


def counterpart(text: str, step: str) -> Span:
    """The step of a right rationale that stands where `step` does in a wrong one: the most alike, else the answer."""
    *before, last = steps(text)
    if step.startswith("Answer:") or not before:
        return last
    target = words(plain(step))
    alike = [rouge_l(target, words(_said(text, span))) for span in before]
    return before[alike.index(max(alike))] if max(alike) >= ALIKE else last


def _said(text: str, span: Span) -> str:
    """A step in the plain wording, without its stop."""
    return plain(text[slice(*span)]).rstrip(".?").lower()


@lru_cache(maxsize=4096)
def _right(problem: Problem) -> tuple[frozenset[str], frozenset[str]]:
    """What the right arguments say: whole steps, and single facts about options out of lists of them."""
    case = pocket.case_of(problem)
    told = [*case.arguments.bodies, f"Answer: {case.answer}", *pocket.OPENERS, *pocket.CLOSERS]
    known = frozenset(_said(text, span) for text in told for span in steps(text))
    listed = {fact for text in known for fact in _facts(text)}
    return known, frozenset(fact for fact in listed if any(fact.startswith(f"the {one} is ") for one in case.choices))


def _facts(step: str) -> list[str]:
    return re.split(r", | and ", step)


def _is_right(step: str, known: frozenset[str], facts: frozenset[str], problem: Problem) -> bool:
    if step in known or all(fact in facts for fact in _facts(step.removeprefix("but "))):
        return True
    if step.startswith("one might think of "):  # whatever comes to mind first
        return not step.endswith(problem.answer)
    lack = _LACKS.fullmatch(step)
    return bool(lack and lack["illness"] in SIGNS and lack["sign"] not in SIGNS[lack["illness"]])
