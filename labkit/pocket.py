"""Five generated benchmarks and the folder of the pocket models: the lab's default, with nothing to download.

A question is drawn from a small world (pocket_cases.py, pocket_choices.py). What it asks, without names and wording,
is its core; the hash of the core alone decides the split, so that train, validation, test and the text the pocket
models were pretrained on share no core. A rationale is opener + body + closer + `Answer: X`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random

from labkit.pocket_cases import Case, gsm8k, strategyqa
from labkit.pocket_choices import arc, medqa, openbookqa
from labkit.records import LabError, Problem

WORLDS = {
    "pocket_gsm8k": gsm8k,
    "pocket_strategyqa": strategyqa,
    "pocket_arc": arc,
    "pocket_openbookqa": openbookqa,
    "pocket_medqa": medqa,
}
BENCHMARKS: tuple[str, ...] = tuple(WORLDS)
SIZES = {"train": 2400, "validation": 600, "test": 1200}
MODELS = ("teacher", "student-neox", "student-qwen", "teacher-varied", "student-varied")
WEIGHTS = Path(__file__).parent / "weights"

OPENERS = (
    "Let us go one step at a time.",
    "Here is how I see it.",
    "We begin with what is given.",
    "Look closely before answering.",
    "A short argument is enough.",
    "First some careful thought.",
)
CLOSERS = (
    "So that settles it.",
    "Nothing else changes this.",
    "Having checked, we can answer.",
    "That is all we need.",
    "Everything points the same way.",
    "Now the result is clear.",
)


def split_of(core: str) -> str:
    """`test` (16 in 100), `validation` (8), `train` (26) or `pretrain` (50), by the hash of the core."""
    place = int.from_bytes(hashlib.sha256(core.encode()).digest()[:4], "big") % 100
    return "test" if place < 16 else "validation" if place < 24 else "train" if place < 50 else "pretrain"


def cases(benchmark: str, split: str, seed: int = 0) -> Iterator[Case]:
    """Distinct questions of one split (`pretrain` is a split here too), forever, in an order fixed by the seed."""
    rng = Random(f"{benchmark}/{split}/{seed}")
    seen = set()
    while True:
        case = WORLDS[benchmark](rng)
        key = (case.question, case.choices)
        if split_of(case.core) == split and (key not in seen or split == "pretrain"):
            seen.add(key)
            yield case


@cache
def _cases(benchmark: str, split: str) -> tuple[Case, ...]:
    """All questions of a split; raises `LabError` for an unknown benchmark or split."""
    if benchmark not in WORLDS:
        raise LabError(f"{benchmark!r} is not a pocket benchmark: choose from {', '.join(BENCHMARKS)}")
    if split not in SIZES:
        raise LabError(f"{benchmark} has no split {split!r}: choose from {', '.join(SIZES)}")
    return tuple(islice(cases(benchmark, split), SIZES[split]))


def problems(benchmark: str, split: str, n: int | None = None, offset: int = 0) -> list[Problem]:
    """Questions offset ... offset + n of a split (all that are left for None), always the same ones.

    Raises `LabError` for an unknown benchmark or split, or for more questions than `SIZES` of the split.
    """
    stop = SIZES.get(split, 0) if n is None else offset + n
    drawn = _cases(benchmark, split)
    if not 0 <= offset <= stop <= len(drawn):
        raise LabError(f"{benchmark}/{split} has {len(drawn)} questions: cannot give {offset} to {stop}, ask for fewer")
    return [
        Problem(f"{benchmark}/{split}/{i}", benchmark, split, case.question, case.kind, case.answer, case.choices)
        for i, case in enumerate(drawn[offset:stop], offset)
    ]


def prompt(problem: Problem | Case) -> str:
    """The user turn that the pocket models were trained on."""
    options = f"\nOptions: {', '.join(problem.choices)}" if problem.choices else ""
    return f"{problem.question}{options}\nThink step by step."


def case_of(problem: Problem) -> Case:
    """The case that a problem was made of; raises `LabError` where there is none."""
    row = problem.id.rpartition("/")[2]
    drawn = _cases(problem.benchmark, problem.split)
    if not row.isdigit() or int(row) >= len(drawn) or drawn[int(row)].question != problem.question:
        raise LabError(f"{problem.id!r} is not a question of {problem.benchmark}: ask for it with pocket.problems")
    return drawn[int(row)]


def tell(opener: str, body: str, closer: str, answer: str) -> str:
    """The text of one rationale, ending in the line `Answer: X`."""
    return f"{opener} {body} {closer}\nAnswer: {answer}"


def rationales(problem: Problem) -> list[str]:
    """Every correct rationale of a pocket problem: 6 bodies x 6 openers x 6 closers."""
    return [
        tell(opener, body, closer, problem.answer)
        for body in case_of(problem).arguments.bodies
        for opener in OPENERS
        for closer in CLOSERS
    ]


def flawed(problem: Problem) -> list[str]:
    """Rationales that end in a wrong answer: the benchmark's misconception and random slips, each told in one style."""
    told, rng = case_of(problem).arguments, Random(problem.id)
    return [
        tell(rng.choice(OPENERS), body, rng.choice(CLOSERS), answer)
        for body, answer in told.misconceptions + told.slips
    ]


def mistaken(problem: Problem) -> frozenset[str]:
    """The answers that the benchmark's misconception leads to; none for yes and no, where any wrong answer is one.

    Raises `LabError` for a problem that is not of a pocket benchmark.
    """
    return frozenset(answer for _, answer in case_of(problem).arguments.misconceptions if problem.kind != "boolean")


def path(name: str) -> Path:
    """The folder of a pocket model's weights; raises `LabError` for an unknown name."""
    if name not in MODELS:
        raise LabError(f"no pocket model is called {name!r}: choose from {', '.join(MODELS)}")
    return WEIGHTS / name
