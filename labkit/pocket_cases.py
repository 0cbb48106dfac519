"""Number stories and yes/no questions: two of the five small worlds that make the pocket benchmarks.

`gsm8k` and `strategyqa` draw one `Case` each: a question of their namesake's shape in plain English, six ways to argue
for the right answer (forward, facts first, backwards, by contradiction) and wrong arguments of two sorts. All that
a model has to know is in the tables; pocket_choices.py holds the three multiple-choice worlds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from random import Random

from labkit.records import Kind

NAMES = ("Mia", "Ben", "Ana", "Leo", "Zoe", "Sam", "Eva", "Tom", "Ida", "Max")


@dataclass(frozen=True)
class Arguments:
    """What can be said for a question's answers. A mistake is (body, wrong answer)."""

    bodies: tuple[str, ...]
    misconceptions: tuple[tuple[str, str], ...]  # the same wrong idea every time it can apply
    slips: tuple[tuple[str, str], ...]  # right idea, one detail wrong


@dataclass(frozen=True)
class Case:
    """One question, before it has a split and an id."""

    core: str  # what is asked, without wording and names: a core lives in one split only
    question: str
    kind: Kind
    answer: str
    argue: Callable[[], Arguments] = field(compare=False)  # most cases that are drawn turn out to be of another split
    choices: tuple[str, ...] = field(default=())

    @cached_property
    def arguments(self) -> Arguments:
        """The arguments, written when somebody asks for them."""
        return self.argue()


def sentence(text: str) -> str:
    """`text` with a capital first letter."""
    return text[0].upper() + text[1:]


def listed(words: list[str] | tuple[str, ...]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


# --- pocket_gsm8k: two steps of arithmetic -------------------------------------------------------------------------
ITEMS = ("apples", "pens", "books", "shells", "stamps", "coins", "cards", "marbles")
WORDS = {"+": ("add", "plus"), "-": ("subtract", "minus"), "*": ("multiply", "times")}
BACK = {"+": "-", "-": "+"}
STORIES = {  # kind: (first sign, second sign, question, what step one finds, what step two finds)
    "shop": ("+", "-", "{n} has {a} {i}. {n} buys {b} more and then gives {c} to {m}. How many {i} does {n} have now?",
             "after the shop {n} has", "after the gift {n} has"),
    "lost": ("-", "-", "{n} has {a} {i}. {b} of them get lost and {c} go to {m}. How many {i} does {n} still have?",
             "without the lost ones {n} has", "after the gift {n} has"),
    "bags": ("*", "+", "{n} fills {a} boxes with {b} {i} each and keeps {c} more in a bag. How many {i} are there?",
             "the boxes together hold", "with the bag there are"),
    "sold": ("*", "-", "{n} fills {a} boxes with {b} {i} each. Then {m} takes out {c}. How many {i} are still there?",
             "the boxes together hold", "once {m} is done there are"),
    "gain": ("+", "+", "{n} has {a} {i}. {n} finds {b} more and gets {c} from {m}. How many {i} does {n} have now?",
             "after the find {n} has", "after the gift {n} has"),
}  # fmt: skip


def compute(x: int, sign: str, y: int) -> int:
    """x sign y, for the three signs of the stories."""
    return {"+": x + y, "-": x - y, "*": x * y}[sign]


def equation(x: int, sign: str, y: int, result: int) -> str:
    """`3 * 4 = 12`."""
    return f"{x} {sign} {y} = {result}"


def other_order(story: str, a: int, b: int, c: int, t: int) -> str:
    """The same total by another order of steps."""
    first, second = STORIES[story][:2]
    if first != "*":
        u = compute(a, second, c)
        return f"the later part can come first. {equation(a, second, c, u)}, and then {equation(u, first, b, t)}"
    steps = [equation(b * k, "+", b, b * (k + 1)) for k in range(1, a)]
    last = equation(a * b, second, c, t)
    return f"fill one box after the other. {', '.join(steps)}, and then {last}"


def number_bodies(phrases: tuple[str, str], x: tuple[int, str, int, int], y: tuple[int, str, int, int]) -> list[str]:
    """Five ways to tell the steps x, then y, each (left, sign, right, result)."""
    (a, first, b, s), (_, second, c, t) = x, y
    one, two = equation(*x), equation(*y)
    undo = f"{t} {BACK[second]} {c} = {compute(t, BACK[second], c)}"
    return [
        f"{sentence(phrases[0])} {one}. {sentence(phrases[1])} {two}.",
        f"There are two steps, {WORDS[first][0]} and then {WORDS[second][0]}. Step one is {one}. Step two is {two}.",
        f"Start from the end. The last step has to {WORDS[second][0]} {c}, so the number before it must come first. "
        f"That number is {one}. Now {two}.",
        f"The numbers that matter are {a}, {b} and {c}. {a} {WORDS[first][1]} {b} makes {s}, "
        f"and {s} {WORDS[second][1]} {c} makes {t}.",
        f"We compute {one} and then {two}. As a check we go back, and {undo} is the number from before.",
    ]  # fmt: skip


def gsm8k(rng: Random) -> Case:
    """A two-step number story; numbers stay below 40 and only one-digit numbers are added."""
    story = rng.choice(tuple(STORIES))
    first, second, question, found, final = STORIES[story]
    a = rng.randint(*{"*": (2, 4), "-": (13, 28), "+": (5, 18)}[first])
    b = rng.randint(3 if first == "*" else 2, 7)
    most = {"shop": a, "lost": a - b - 1, "sold": a * b - 1}.get(story, 7)
    c = rng.randint(2, min(7, most))
    name, other = rng.sample(NAMES, 2)
    words = {"n": name, "m": other, "i": rng.choice(ITEMS), "a": a, "b": b, "c": c}
    phrases = (found.format(**words), final.format(**words))
    s = compute(a, first, b)
    t = compute(s, second, c)

    def told(s: int, second: str, t: int) -> list[tuple[str, str]]:
        return [(body, str(t)) for body in number_bodies(phrases, (a, first, b, s), (s, second, c, t))]

    def argue() -> Arguments:
        flip = BACK[second]
        one = equation(a, first, b, s)
        stops = [f"{sentence(phrases[0])} {one}.", f"There is one step, to {WORDS[first][0]}. That step is {one}.",
                 f"The numbers that matter are {a} and {b}. {a} {WORDS[first][1]} {b} makes {s}."]  # fmt: skip
        off = [d for d in (-2, -1, 1, 2) if s + d > 0 and compute(s + d, second, c) >= 0]
        slips = [pair for d in off for pair in told(s + d, second, compute(s + d, second, c))]
        slips += [pair for d in (-10, -1, 1, 2) if t + d >= 0 for pair in told(s, second, t + d)]
        return Arguments(
            bodies=(*(body for body, _ in told(s, second, t)), f"Here {other_order(story, a, b, c, t)}."),
            misconceptions=(*((body, str(s)) for body in stops), *told(s, flip, compute(s, flip, c))),
            slips=tuple(slips),
        )

    return Case(f"{story} {a} {b} {c}", question.format(**words), "number", str(t), argue)


# --- pocket_strategyqa: two facts about size, compared ---------------------------------------------------------------
SIZES = ("tiny", "small", "middling", "large", "huge")
ANIMALS = (
    ("a flea", "a ladybird", "a spider", "a fly", "a snail"),
    ("a hamster", "a frog", "a sparrow", "a newt", "a robin"),
    ("a rabbit", "a hen", "a fox", "a badger", "a cat"),
    ("a horse", "a cow", "a bear", "a donkey", "a deer"),
    ("an elephant", "a giraffe", "a hippo", "a rhino", "a mammoth"),
)
ROOMS = (
    ("a thimble", "a matchbox", "a pill box", "a nutshell", "a ring box"),
    ("a teapot", "a lunch box", "a mug", "a pencil case", "a coat pocket"),
    ("a suitcase", "a bath tub", "a backpack", "a wine crate", "a laundry basket"),
    ("a stable", "a van", "a garage", "a shed", "a lift"),
    ("a stadium", "a hangar", "a cathedral", "a harbor", "a circus tent"),
)
ROOM_QUESTIONS = (
    "Would {x} fit into {y}?",
    "Is there enough room in {y} for {x}?",
    "{n} dreams of {x} that hides in {y}. Could that be?",
    "{n} wants to put {x} into {y}. Is there room?",
)


def room_bodies(x: str, y: str, size_x: int, size_y: int, fits: bool) -> list[str]:
    """Six arguments about whether x (of size_x) fits into y (for size_y); `fits` is what they conclude."""
    sx, sy = SIZES[size_x], SIZES[size_y]
    if fits == (size_x <= size_y):
        order = "less than" if size_x < size_y else "more than" if size_x > size_y else "the same as"
    else:
        order = "less than" if fits else "more than"  # the comparison is reversed
    verdict, other = ("fits", "fails") if fits else ("fails", "fits")
    fact_x, fact_y = f"{x} is {sx}", f"{y} has room for what is {sy}"
    return [
        f"{sentence(fact_x)}. {sentence(fact_y)}. {sentence(sx)} is {order} {sy}, so this {verdict}.",
        f"{sentence(fact_y)}, while {fact_x}. Since {sx} is {order} {sy}, the idea {verdict}.",
        f"For a yes, {x} must not be bigger than the room. We know that {fact_x} and that {fact_y}. "
        f"In order, {sx} is {order} {sy}, which {verdict}.",
        f"Suppose it {other}. But {fact_x}, {fact_y}, and {sx} is {order} {sy}. That cannot be, so it {verdict}.",
        f"Two facts decide this. One is that {fact_x}. The other is that {fact_y}. "
        f"On a scale of sizes {sx} is {order} {sy}.",
        f"How big is {x}? It is {sx}. How big may it be for {y}? Up to {sy}. As {sx} is {order} {sy}, it {verdict}.",
    ]  # fmt: skip


def strategyqa(rng: Random) -> Case:
    """Does an animal fit into something? Half the answers are yes."""
    yes = rng.random() < 0.5
    levels = range(len(SIZES))
    size_x, size_y = rng.choice([(i, j) for i in levels for j in levels if (i <= j) == yes])
    x, y = rng.choice(ANIMALS[size_x]), rng.choice(ROOMS[size_y])
    right, wrong = ("yes", "no") if yes else ("no", "yes")

    def argue() -> Arguments:
        moved = [(i, size_y) for i in levels if (i <= size_y) != yes]
        moved += [(size_x, j) for j in levels if (size_x <= j) != yes]
        moved = moved or [(size_y, size_x)]  # no single slip turns the tiny against the huge
        return Arguments(
            bodies=tuple(room_bodies(x, y, size_x, size_y, yes)),
            misconceptions=tuple((body, wrong) for body in room_bodies(x, y, size_x, size_y, not yes)),
            slips=tuple((body, wrong) for pair in moved for body in room_bodies(x, y, *pair, not yes)),
        )

    return Case(f"{x} {y}", rng.choice(ROOM_QUESTIONS).format(x=x, y=y, n=rng.choice(NAMES)), "boolean", right, argue)
