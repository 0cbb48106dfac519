r"""Read and compare single answers: a number, an option's letter or text, yes or no, or plain text.

`answers` finds where a completion announces its answer; this file says what the few words there mean for a problem, and
None when they do not mean one thing ("A or B", "5 to 7", "not A"). Numbers are in English notation: "1,234" and
"1 234" are 1234, "1.234" is a decimal, "1,5" and "1.234,56" are nothing. All patterns are bounded or possessive, so
that time is linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from fractions import Fraction

from labkit.records import LabError, Problem

LIMIT = 200  # characters: announced words whose first sentence is longer are no answer (kind text: any line is)

Span = tuple[int, int]
Value = tuple[str, Span] | None  # an answer in the form of the gold answers, and the characters that hold it

# --- plain text ----------------------------------------------------------------------------------------------------
# minus, single quotes, ellipsis, ideographic full stop, Arabic decimal and thousands signs, times, line separators
LOOKALIKES = dict(zip("\u2212\u2018\u2019\u2026\u3002\u066b\u066c\u00d7\u2028\u2029", "-''...,*\n\n", strict=True))
CATEGORIES = {"Cf": " ", "Zs": " ", "Pd": "-", "Pi": '"', "Pf": '"'}
DRESS = re.compile(r"\\(?:d?text|math|mbox|left|right)[a-z]{0,6}|\\[()\[\],;: ]|\\(?=[$%])|\*\*|__|~~|`")
SENTENCE = re.compile(r"[.!?](?=\s++[^\d\s]|\s*+$)")
LEFT_EDGE = " \t\n*_\"'()[]{},:;!$\\|"  # no "<" and no "-": they tell options apart
EDGE = LEFT_EDGE + "."


def plain(text: str) -> str:
    """`text` with look-alikes as ASCII and Markdown and LaTeX dress blanked, one character for one: offsets hold."""
    table: dict[int, str] = {ord(char): _fold(char) for char in set(text) if not char.isascii()}
    return DRESS.sub(lambda found: " " * len(found[0]), text.translate(table | {ord("\r"): "\n"}))


def _fold(char: str) -> str:
    digit, category = unicodedata.decimal(char, None), unicodedata.category(char)
    wide = char if category == "No" else unicodedata.normalize("NFKC", char)  # "No": the digits of ½ and ² mean more
    folded = LOOKALIKES.get(char) or (CATEGORIES.get(category) if digit is None else str(digit))
    return folded or (wide if len(wide) == 1 else char)


def trim(text: str, span: Span) -> Span:
    """`span` without white space, quotes, brackets and punctuation at its ends."""
    words = text[slice(*span)]
    start = span[0] + len(words) - len(words.lstrip(LEFT_EDGE))
    return start, max(start, span[0] + len(words.rstrip(EDGE)))


def _sentence(text: str, span: Span, limit: int) -> str | None:
    """The first sentence of `span`; None if it runs past `limit` characters."""
    start, end = span
    found = SENTENCE.search(text, start, min(end, start + limit + 1))
    return text[start : found.end()] if found else text[start:end] if end - start <= limit else None


def value(text: str, span: Span, problem: Problem, closing: bool) -> Value:
    """What the characters `span` of `text`, which is `plain`, answer to `problem`; None when unreadable or ambiguous.

    `closing`: nothing follows in the text, so that a whole sentence ("She has 18 left") may be taken for its number.
    """
    if problem.kind == "text":
        start, end = trim(text, span)
        return (" ".join(text[start:end].split()), (start, end)) if start < end else None
    longest = max(map(len, problem.choices), default=0)
    sentence = _sentence(text, span, LIMIT + longest)
    if sentence is None:
        return None
    if problem.kind == "number":
        found = number(sentence, closing)
    elif problem.kind == "boolean":
        found = _truth(sentence)
    else:
        found = _choice(text[slice(*span)][: LIMIT + longest], problem)
    return (found[0], (span[0] + found[1][0], span[0] + found[1][1])) if found else None


# --- numbers -------------------------------------------------------------------------------------------------------
NUMBER = re.compile(
    r"""(?ix) (?<![^\W_]) (?<![.^]) (?<![^\W_]_)
    (?P<sign> (?<![\d)%][ ])-[ ]? | \+[ ]? | (?:minus|negative)[ ] )?+ (?:[$€£¥₹][ ]?)? (?P<sign2>-)?+
    (?: (?: (?P<whole>\d{1,9}) (?:[ ]{1,2}|(?=[\\¼-¾⅐-⅞])) )?
        (?: (?P<vulgar>[¼-¾⅐-⅞]) | (?P<num>\d{1,15})[ ]?/[ ]?(?P<den>\d{1,15})(?![\d/])
          | \\[dt]?frac[ ]?\{[ ]?(?P<num2>\d{1,15})[ ]?\}\{[ ]?(?P<den2>\d{1,15})[ ]?\} )
      | (?P<plain> (?: \d{1,3}(?:(?:,|\{,\}|[ ]{1,2})\d{3}){1,12}(?!\d) | \d++ ) (?:\.\d++)?+ | \.\d++ )
        (?: e(?P<exp>[-+]?\d{1,2}) | [ ]?(?:x|\*|\\times)[ ]?10\^\{?(?P<exp2>[-+]?\d{1,2})\}? )?+ )
    (?! [\d^] | _\d | \.\d | (?:st|nd|rd|th)\b ) (?: [ ]?(?P<scale>hundred|thousand|million|billion|trillion)\b )?+"""
)
SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
LONGEST_NUMBER = 60  # characters: more digits than this are noise, and int() has a limit of its own
ASIDE = re.compile(r"(?<=[\w%] )\([^()]*\)")  # "18 (3 * 6)"
REASON = re.compile(r"(?is),?\s(?:because|since|which|as)\b.*")
UNSURE = re.compile(
    r"(?i)\b(?:or|not|between|neither|either|nor|maybe|perhaps|cannot|unknown|dozens?)\b|n't\b|\bthan\b[^\d]*\d"
    r"|[<>≤≥±?]|\d ?k\b|=[^=]*(?:[,;]\s|\band\b)[^=]*="
)
OPENING = re.compile(
    r"(?is)(?:\W*\b(?:about|approximately|roughly|around|exactly|simply|just|therefore|thus|then|a|total|of|equals?|to|"
    r"usd|us|rs|minus|negative|the|answer|is)\b)*\W*|.*=\W*"
)


def number(sentence: str, closing: bool) -> Value:
    """The one number that `sentence` states: alone, with its unit, or as the result of an equation.

    A sentence with other words before its number states it only if `closing`: "We look for the rest after 3 days".
    """
    words = ASIDE.sub(lambda found: " " * len(found[0]), REASON.sub("", sentence))
    opening = re.match(r"\D*", words)[0]
    if UNSURE.search(words) or not (closing or OPENING.fullmatch(opening)):
        return None
    results: dict[Fraction | None, Span] = {}
    for side in re.finditer(r"[^=]+", words):
        found = {amount(one): one.span() for one in NUMBER.finditer(words, *side.span())}
        alone = [trim(words, span) for span in found.values()] == [trim(words, side.span())]
        if alone or (len(found) == 1 and side.end() == len(words)):
            results |= found
    if len(results) != 1 or None in results:
        return None
    ((size, span),) = results.items()
    return decimal(size), span


def amount(found: re.Match[str]) -> Fraction | None:
    """The value of a match of NUMBER; None for one too long, or divided by zero."""
    numerator, denominator = found["num"] or found["num2"], int(found["den"] or found["den2"] or 1)
    if len(found[0]) > LONGEST_NUMBER or not denominator:
        return None
    if numerator:
        size = Fraction(int(numerator), denominator)
    elif found["vulgar"]:
        size = Fraction(unicodedata.numeric(found["vulgar"])).limit_denominator(10)
    else:
        size = Fraction(re.sub(r"[^\d.]", "", found["plain"])) * Fraction(10) ** int(found["exp"] or found["exp2"] or 0)
    size = (size + int(found["whole"] or 0)) * SCALES.get((found["scale"] or "").lower(), 1)
    return size if (found["sign"] or "+").startswith("+") == (not found["sign2"]) else -size


def decimal(size: Fraction) -> str:
    """`size` written without needless zeros: "18", "0.75"; as "1/3" where no decimal is exact."""
    places = next((n for n in range(LONGEST_NUMBER) if 10**n % size.denominator == 0), None)
    return str(size) if places is None else f"{Decimal(f'{int(size * 10**places)}E-{places}'):f}"


# --- yes or no -----------------------------------------------------------------------------------------------------
TRUTH = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
YES_NO = re.compile(
    r"(?i)\W*(?:(?:the\s)?(?:(?:correct|final)\s)?answer\sis\W{1,3}|it(?:\sis|'s)\s)?(yes|no|true|false)"
    r"(?=\s*(?:$|[-.,;:!)\"'\]}*])|\s(?:it|he|she|they|this|that|there|the|because|since|as|you|we|i)\b)"
    r"(?!\W{1,4}(?:(?:or|and|but)\s)?(?:yes|no|true|false|maybe)\b)"
)


def _truth(sentence: str) -> Value:
    """Yes or no where `sentence` opens with it and goes on as an answer does: "No evidence exists" is not a no."""
    found = YES_NO.match(sentence)
    return (TRUTH[found[1].lower()], found.span(1)) if found else None


# --- options -------------------------------------------------------------------------------------------------------
LEAD_IN = re.compile(
    r"(?i)(?:(?:the\s)?(?:(?:correct|right|best|final)\s){0,2}(?:option|choice|letter|answer)(?:\sis)?\b\W{1,4})?"
)


def normal(text: str) -> str:
    """`text` as compared with other texts: plain, in single spaces, without quotes, brackets, final dot around it."""
    return " ".join(plain(text).split()).lstrip(LEFT_EDGE).rstrip(EDGE)


def _key(text: str) -> str:
    return normal(text).casefold()


def _bare(text: str) -> str:
    return re.sub(r"^(?:an?|the) ", "", _key(text))


def named(words: str, problem: Problem) -> str | None:
    """The option (its label, or its text where there are no labels) that `words` name by its text; None if two do."""
    for form in (str, normal, _key, _bare):  # case first: "Ww or WW" is not "WW or ww"
        names = problem.labels or problem.choices
        hits = {name for name, text in zip(names, problem.choices, strict=False) if form(text) == form(words)}
        if hits:
            return hits.pop() if len(hits) == 1 else None
    return None


def _choice(words: str, problem: Problem) -> Value:
    """The option that `words` name by label, by text, or by both in agreement."""
    start, end = trim(words, (LEAD_IN.match(words, trim(words, (0, len(words)))[0]).end(), len(words)))
    said = words[start:end]
    if said.upper() in problem.labels:
        return said.upper(), (start, end)
    for text in (said, ASIDE.sub("", REASON.sub("", said)).rstrip(EDGE)):
        if text and (name := named(text, problem)):
            return name, (start, start + len(text))
    found = problem.labels and re.match(
        rf"(?is)({'|'.join(map(re.escape, problem.labels))})(?!\w)((?:[\s)\]}}.:,;(\[\"*]|-(?=\s))*)(.*)", said
    )
    if not found or not _agrees(found[1].upper(), found[2], found[3], problem):
        return None
    return found[1].upper(), (start, start + len(found[1]))


def _agrees(label: str, gap: str, rest: str, problem: Problem) -> bool:
    """Does what follows a label leave it standing? Not if it names another option, or makes "A" an article."""
    pairs = zip(problem.labels, problem.choices, strict=False)
    texts, opened = {name: text for name, text in pairs if normal(text)}, []
    for form in (normal, _key):
        matches = {name: re.match(rf"{re.escape(form(text))}(?!\w)", form(rest)) for name, text in texts.items()}
        opened = opened or [name for name, match in matches.items() if match]
    named_too = max(opened, key=lambda name: (len(texts[name]), name == label), default=label)
    if named_too != label:
        return False
    if not opened and not gap.strip():
        return bool(re.match(r"(?i)(?:is(?! (?:not|wrong|incorrect|false))|because|since|as)\b", rest))
    others = "|".join(re.escape(one) for one in problem.labels if one != label)
    other = re.compile(  # a lone letter before a lower-case word is most likely the article
        rf"(?i:\b(?:or|and|nor|not)\s+\W{{0,3}}(?:option\s|choice\s)?(?:{others})\b)"
        rf"|(?<![\w'])(?:{others})(?![\w']| [a-z])"
    )
    if opened:
        return not other.search(normal(rest), len(normal(texts[label])))
    return not (other.match(rest) if "." in gap else other.search(rest))


# --- comparison ----------------------------------------------------------------------------------------------------
def is_correct(answer: str, problem: Problem) -> bool:
    """Is `answer` the gold answer? Numbers by exact value (18 = 18.00), options by label or text, the rest by words.

    Raises LabError if the gold answer itself is none of the problem's kind.
    """
    gold, said = _canonical(problem.answer, problem), _canonical(answer, problem)
    if gold is None:
        raise LabError(f"{problem.id}: gold answer {problem.answer!r} is no {problem.kind}: correct the question file")
    return said == gold


def _canonical(answer: str, problem: Problem) -> str | None:
    if problem.kind == "text":
        return _key(answer)
    words = plain(answer)
    found = value(words, (0, len(words)), problem, closing=True)
    return found[0] if found else None
