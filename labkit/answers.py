r"""Find the final answer in a completion and grade it: pure functions that say None when they are not sure.

Six rules are tried in order. Strict ones need the model to announce an answer: the last `Answer: X` line, the last
"the answer is X", the last `\boxed{X}`, the last `#### X`. Loose ones take the last number, letter, yes or no, or an
option's text on the last line. An announcement that cannot be read ("Answer: A or B", "Answer: not A", "Answer: none")
ends it: no loose rule is tried, and of the strict ones only an announcement later in the text counts. A guess never
lifts a score.

An announced answer is the first sentence of its line, or of the next one where nothing follows on its own. Not read at
all: what stands before `</think>` or after an unclosed `<think>`, and a next question that the model wrote for itself
(from a line "Question:" that follows an announced answer).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

from labkit.records import Completion, Outcome, Problem, Reading
from labkit.values import EDGE, LIMIT, NUMBER, Span, amount, decimal, is_correct, named, normal, plain, trim, value

__all__ = ["RULES", "STRICT", "Grader", "grade", "is_correct", "read", "readings"]

RULES = ("answer-line", "answer-is", "boxed", "hashes", "last-value", "option-text")
STRICT = frozenset(RULES[:4])
TAIL = 2000  # characters from the end in which loose rules look for numbers, yes and no

Grader = Callable[[Completion, Problem], tuple[Outcome, Reading]]  # `grade` below, or a verifier of your own
Found = tuple[int, str | None, Span]  # where it is announced, the answer (None: not readable), where that stands

ANSWER_LINE = re.compile(
    r"(?im)(?:^|[^\w\s]|_)[ \t]*+(?:(?:so|the|my|our|your|final|correct|right|best|short)[ \t]++){0,4}"
    r"(?P<word>answer|(?:correct|right|best)[ \t](?:option|choice))"
    r"[ \t\"'*_]{0,4}(?:(?:\([^()\n]{0,40}\)[ \t*_]{0,4})?(?:[:=]|-(?=[ \t]))|$)"
)
ANSWER_IS = re.compile(
    r"(?i)\b(?P<word>answer|(?:correct|right|best)[ \t]{1,3}(?:option|choice|letter))[ \t\"'*_]{0,4}"
    r"(?:(?:to|for)[ \t][^\n.:=]{0,40}?[ \t])?(?:is|was|(?:will|would|should|must) be)(?![\w'])[ \t]{0,3}:?"
    r"(?![ \t]{0,3}(?:[,;?!]|\.(?!\d)))"
)
PROSE_END = re.compile(r"(?:(?<=\w{4})|(?<=\d))[.!?](?=[ \t]+[A-Z])")  # "It is Paris. The", but not "St. Louis"
BOXED = "\\boxed{"
HASHES = re.compile(r"(?<!#)####(?!#)([^\n]*+)")
AFTER_HASHES = re.compile(r"[ %$*]{0,4}(?:[a-z]{1,20} ?){0,2}[ .*]{0,4}")  # "#### 18 apples", but not "#### 2. Add"
QUESTION = r"[ \t#*>-]*+(?:question|q|problem|user|human)[ \t]?\d{0,3}[ \t]?:"
NEXT_QUESTION = re.compile(rf"(?im)^{QUESTION}")
SAID = re.compile(rf"[ \t]*+(?:[ \t$]*+\n[\s$]*+(?:[-*>•][ \t]++)?+)?+(?!(?i:{QUESTION}))([^\n]*+)")

HEADING = re.compile(r"(?im)^[ \t]*+\d{1,3}[.)](?=[ \t]++\S)|\bstep[ \t]{1,3}\d{1,3}")  # "2. Add", "Step 2"
# "3 more than 15", "5-7", "64 * 0.8": the last number is not the result
DOUBT = re.compile(r"(?i)(?:\d[,:/-]|\b(?:than|not|or) \W?|[\w)%] ?(?:[*+/÷]|\\times) ?)$")
YES_NO = re.compile(r"(?i)(?<![\w/])(?<!\bor )(?<!\band )(yes|no)(?=[ \t]{0,3}(?:$|[\n.,;:!)\"*]))")
DENIAL = re.compile(r"(?i)\b(?:not|incorrect|wrong|except|neither|nor|none|rather|instead|cannot)\b|n't\b")


def grade(completion: Completion, problem: Problem) -> tuple[Outcome, Reading]:
    """How the completion did, and what was read. One that was cut is "truncated" whatever it had said by then."""
    reading = read(completion.text, problem)
    if completion.finish == "length":
        return "truncated", reading
    if reading.answer is None:
        return "unparsed", reading
    return ("correct" if is_correct(reading.answer, problem) else "wrong"), reading


def read(text: str, problem: Problem) -> Reading:
    """The final answer in `text`, written as gold answers are; the span counts characters of `text`.

    If answer is None, rule and span show the announcement that could not be read, and are None where there was none.
    """
    unread, floor = Reading(None, None, None, False), -1
    for rule, found in _tried(text, problem):
        if found is None or (unread.rule and (rule not in STRICT or found[0] <= floor)):
            continue
        if found[1] is not None:
            return Reading(found[1], rule, found[2], rule in STRICT)
        unread, floor = Reading(None, rule, found[2], False), found[0]
    return unread


def readings(text: str, problem: Problem) -> list[Reading]:
    """What each of RULES finds by itself, in order, with `strict` for its sort.

    A rule that finds nothing has span None; one that finds an announcement but cannot read it has answer None.
    """
    return [
        Reading(found and found[1], rule, found and found[2], rule in STRICT) for rule, found in _tried(text, problem)
    ]


def _tried(text: str, problem: Problem) -> Iterator[tuple[str, Found | None]]:
    """Every rule in order with what it finds, worked out only when asked for."""
    text = _answering(plain(text), problem)
    return ((rule, find(text, problem)) for rule, find in zip(RULES, FINDERS, strict=True))


def _answering(text: str, problem: Problem) -> str:
    """`text` with its thoughts blanked, and cut at the first question that the model asked itself after answering."""
    start = text.rfind("</think>") + len("</think>") if "</think>" in text else 0
    text = "\n" * start + text[start:].partition("<think>")[0]
    for question in islice(NEXT_QUESTION.finditer(text), 5):
        before = text[: question.start()]
        if any(found and found[1] for found in (find(before, problem) for find in FINDERS[: len(STRICT)])):
            return before
    return text


def _answer_line(text: str, problem: Problem) -> Found | None:
    return _announced(text, problem, list(ANSWER_LINE.finditer(text)), whole=True)


def _answer_is(text: str, problem: Problem) -> Found | None:
    return _announced(text, problem, list(ANSWER_IS.finditer(text)), whole=False)


def _announced(text: str, problem: Problem, marks: list[re.Match[str]], whole: bool) -> Found | None:
    """What the last of `marks` that anything follows announces; `whole`: a closing sentence may hold it."""
    if not marks:
        return None
    mark, span = marks[-1], (len(text), len(text))
    for one in reversed(marks):
        said = SAID.match(text, one.end())
        if said and trim(text, said.span(1))[0] < said.end():
            mark, span = one, said.span(1)
            break
    if problem.kind == "text" and not whole and (end := PROSE_END.search(text, *span)):
        span = span[0], end.start()
    box = text.find(BOXED, *span)
    inside = _inside(text, box) if box >= 0 else span
    closing = box >= 0 or (whole and not text[span[1] :].strip(EDGE))
    return _found(mark.start("word"), text, inside, problem, closing)


def _found(at: int, text: str, span: Span, problem: Problem, closing: bool) -> Found:
    found = value(text, span, problem, closing)
    return (at, *found) if found else (at, None, trim(text, span))


def _inside(text: str, box: int) -> Span:
    """What the braces of the \\boxed at `box` hold; empty if they do not close."""
    start, depth = box + len(BOXED), 1
    for end in range(start, min(len(text), start + 2 * LIMIT)):
        depth += (text[end] == "{") - (text[end] == "}")
        if not depth:
            return start, end
    return start, start


def _boxed(text: str, problem: Problem) -> Found | None:
    box = text.rfind(BOXED)
    return _found(box, text, _inside(text, box), problem, closing=True) if box >= 0 else None


def _hashes(text: str, problem: Problem) -> Found | None:
    """`####` and nothing but a number, a label, yes or no; it also begins a heading, which announces nothing."""
    for line in islice(reversed(list(HASHES.finditer(text))), 20):
        found, (start, end) = value(text, line.span(1), problem, closing=False), trim(text, line.span(1))
        if found and problem.kind != "text" and found[1][0] <= start:
            unit = problem.kind == "number" and AFTER_HASHES.fullmatch(text, found[1][1], line.end())
            if unit or found[1][1] == end:
                return line.start(), *found
    return None


def _last_value(text: str, problem: Problem) -> Found | None:
    if problem.kind == "number":
        return _last_number(text)
    if problem.kind == "choice":
        return _last_letter(text, problem)
    found = list(YES_NO.finditer(text, max(0, len(text) - TAIL))) if problem.kind == "boolean" else []
    return (found[-1].start(), found[-1][0].lower(), found[-1].span()) if found else None


def _last_number(text: str) -> Found | None:
    start = max(0, len(text) - TAIL)
    tail = HEADING.sub(lambda found: " " * len(found[0]), text[start:])
    found = list(NUMBER.finditer(tail))
    if not found:
        return None
    size, span = amount(found[-1]), (start + found[-1].start(), start + found[-1].end())
    sure = size is not None and not DOUBT.search(tail[: found[-1].start()][-12:])
    return span[0], decimal(size) if sure else None, span


def _last_line(text: str) -> Span:
    end = len(text.rstrip())
    return max(text.rfind("\n", 0, end) + 1, end - 2 * LIMIT), end


def _last_letter(text: str, problem: Problem) -> Found | None:
    """Labels that stand as "(B)", "option B", "B) ..." or a final "is B" on the last line, if it is one label only."""
    if not problem.labels:
        return None
    label, (start, end) = "|".join(map(re.escape, problem.labels)), _last_line(text)
    shapes = (
        rf"\(({label})\)",
        rf"\b(?i:option|choice)[ \t]({label})\b",
        rf"^[ \t*]{{0,8}}\(?({label})(?:[).:*](?![\w.])|[ \t.*]{{0,4}}$)",
        rf"\b(?i:is|be|choose|pick|select|so|thus|hence|therefore),?[ \t:]{{1,3}}\"?({label})[ \t.!*\"]{{0,4}}$",
    )
    line = text[start:end]
    found = [one for shape in shapes for one in re.finditer(shape, line)]
    if not found:
        return None
    one = len({match[1] for match in found}) == 1 and not DENIAL.search(line)
    span = (start + found[0].start(1), start + found[0].end(1))
    return span[0], found[0][1] if one else None, span


def _option_text(text: str, problem: Problem) -> Found | None:
    """The one option that is the last line, or that stands there word for word with no other option and no denial."""
    start, end = _last_line(text)
    line = text[start:end]
    if problem.kind != "choice" or not line:
        return None
    if name := named(line, problem):
        return start, name, (start, end)
    texts = sorted((normal(one) for one in problem.choices if len(normal(one)) > 2), key=len, reverse=True)
    if not texts:
        return None
    # longest first, so that "iron" is not found inside "iron nail"
    found = list(re.finditer(rf"(?i)(?<!\w)(?:{'|'.join(map(re.escape, texts))})(?!\w)", line))
    if not found:
        return None
    names = {named(one[0], problem) for one in found}
    name = names.pop() if len(names) == 1 and not DENIAL.search(line) else None
    return start, name, (start + found[-1].start(), start + found[-1].end())


FINDERS = (_answer_line, _answer_is, _boxed, _hashes, _last_value, _option_text)
