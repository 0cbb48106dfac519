"""The pocket world's second wording: the same arguments, told in many words, so that each token is harder to foresee.

The plain world has few ways to say a thing, so a small model soon is sure of every next token: far surer than a real
model of real text, and the odds ratio amplifies by 1 / (1 - p). `vary` gives a rationale a real text's surprise:
connectives before sentences, adverbs behind verbs, synonyms. What is argued stays, and `plain` gives it back.
"""

from __future__ import annotations

import re
from random import Random

CONNECTIVES = (
    "Indeed", "Well", "Okay", "Right", "Clearly", "Surely", "Obviously", "Still", "Moreover", "Besides", "Likewise",
    "Naturally", "Frankly", "Honestly", "Briefly", "Anyway", "Evidently", "Certainly", "Admittedly", "Granted",
    "Thankfully", "Curiously", "Importantly", "Undoubtedly",
)  # fmt: skip
ADVERBS = (
    "plainly", "truly", "simply", "really", "always", "usually", "definitely", "probably", "apparently", "basically",
    "actually", "generally", "normally", "presumably", "undeniably", "literally",
)  # fmt: skip
SYNONYMS = {  # each word stands under one head only, and none is a word of the plain world but the head itself
    "so": ("hence", "thus", "therefore"),
    "suppose": ("assume", "imagine", "pretend"),
    "since": ("because", "seeing"),
    "while": ("whereas", "whilst"),
    "but": ("yet", "however", "though"),
    "anything": ("whatever", "whichever"),
    "made": ("built", "formed", "fashioned", "produced"),
    "know": ("recall", "remember", "understand"),
    "facts": ("truths", "clues", "findings"),
    "bring": ("cause", "provoke", "trigger", "induce"),
    "brings": ("causes", "provokes", "triggers", "induces"),
    "typical": ("characteristic", "suggestive", "indicative"),
    "fits": ("works", "suits", "succeeds"),
    "fails": ("collapses", "flops", "founders"),
    "room": ("space", "capacity", "leeway"),
    "number": ("amount", "figure", "value", "quantity"),
    "numbers": ("amounts", "figures", "values", "quantities"),
    "makes": ("gives", "yields", "equals", "becomes"),
    "compute": ("calculate", "evaluate", "determine"),
    "step": ("stage", "move", "operation"),
    "steps": ("stages", "moves", "operations"),
    "left": ("remaining", "available"),
    "think": ("consider", "speculate", "wonder"),
    "known": ("famous", "notorious", "notable"),
    "settles": ("resolves", "decides", "concludes"),
    "careful": ("thorough", "attentive"),
    "argument": ("reasoning", "explanation", "proof"),
    "thought": ("reflection", "analysis", "attention"),
    "result": ("outcome", "conclusion", "finding"),
    "answer": ("respond", "reply", "finish"),
    "checked": ("verified", "confirmed", "inspected"),
}
VERBS = ("is", "are", "has", "must", "could", "can", "does", "may", "have", "would", "cannot", "might", "we")
OFTEN = 0.7  # how often there is a connective, or an adverb where one may stand

_HEADS = {other: head for head, others in SYNONYMS.items() for other in others}
_SWAPPED = re.compile(rf"\b(?:{'|'.join(SYNONYMS)})\b", re.I)
_SWAPPED_BACK = re.compile(rf"\b(?:{'|'.join(_HEADS)})\b", re.I)
_VERB = re.compile(rf"\b(?:{'|'.join(VERBS)})(?= \w)", re.I)
_ADVERB = re.compile(rf" (?:{'|'.join(ADVERBS)})\b")
_CONNECTIVE = re.compile(rf"(?:^|(?<=[.?] )|(?<=\n))(?:{'|'.join(CONNECTIVES)}), (\w)")


def vary(text: str, rng: Random) -> str:
    """A rationale in other words; its line `Answer: X` stays as it is."""
    told, line, answer = text.partition("\nAnswer: ")
    return " ".join(_sentence(sentence, rng) for sentence in re.split(r"(?<=[.?]) ", told)) + line + answer


def _sentence(text: str, rng: Random) -> str:
    text = _SWAPPED.sub(lambda found: _like(found[0], rng.choice((found[0], *SYNONYMS[found[0].lower()]))), text)
    text = _VERB.sub(lambda found: f"{found[0]} {rng.choice(ADVERBS)}" if rng.random() < OFTEN else found[0], text)
    return f"{rng.choice(CONNECTIVES)}, {text[0].lower()}{text[1:]}" if rng.random() < OFTEN else text


def _like(old: str, new: str) -> str:
    """`new` with a capital where `old` has one."""
    return new[0].upper() + new[1:] if old[0].isupper() else new


def plain(text: str) -> str:
    """What `vary` was given; a text of the plain world stays as it is."""
    told, line, answer = text.partition("\nAnswer: ")
    told = _ADVERB.sub("", _CONNECTIVE.sub(lambda found: found[1].upper(), told))
    return _SWAPPED_BACK.sub(lambda found: _like(found[0], _HEADS[found[0].lower()]), told) + line + answer
