"""Number stories and yes/no questions: two of the five small worlds that make the pocket benchmarks.

`gsm8k` and `strategyqa` draw one `Case` each: a question of their namesake's shape in plain English, six ways to argue
for the right answer (forward, facts first, backwards, by contradiction, ...) and wrong arguments of two sorts. All that
a model has to know is in the tables; pocket_choices.py holds the three multiple-choice worlds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from labkit.records import Kind

NAMES = ("Mia", "Ben", "Ana", "Leo", "Zoe", "Sam", "Eva", "Tom", "Ida", "Max")


@dataclass(frozen=True)
class Case:
    """One question, before it has a split and an id. A mistake is (body, wrong answer)."""

    core: str  # what is asked, without wording and names: a core lives in one split only
    question: str
    kind: Kind
    answer: str
    bodies: tuple[str, ...]
    misconceptions: tuple[tuple[str, str], ...]  # the same wrong idea every time it can apply
    slips: tuple[tuple[str, str], ...]  # right idea, one detail wrong
    choices: tuple[str, ...] = field(default=())


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
    "both": ("+", "+", "{n} has {a} {i}. {m} has {b} more than {n}. How many {i} do they have together?",
             "alone {m} has", "together they have"),
}  # fmt: skip


def compute(x: int, sign: str, y: int) -> int:
    """x sign y, for the three signs of the stories."""
    return {"+": x + y, "-": x - y, "*": x * y}[sign]


def equation(x: int, sign: str, y: int, result: int) -> str:
    """`3 * 4 = 12`."""
    return f"{x} {sign} {y} = {result}"


def other_order(story: str, a: int, b: int, c: int, t: int) -> str:
    """The same total by another order of steps."""
    if story == "shop":
        return f"the gift can come first. {equation(a, '-', c, a - c)}, and then {equation(a - c, '+', b, t)}"
    if story == "lost":
        return f"put together what goes away. {equation(b, '+', c, b + c)}, and then {equation(a, '-', b + c, t)}"
    if story == "both":
        return f"count the equal part twice. {equation(a, '+', a, a + a)}, and then {equation(a + a, '+', b, t)}"
    steps = [equation(b * k, "+", b, b * (k + 1)) for k in range(1, a)]
    last = equation(a * b, "+" if story == "bags" else "-", c, t)
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
    """A two-step number story; numbers stay below 60."""
    story = rng.choice(tuple(STORIES))
    first, second, question, found, final = STORIES[story]
    a = rng.randint(2, 5) if first == "*" else rng.randint(12, 25) if story == "lost" else rng.randint(5, 20)
    b = rng.randint(3, 9) if first == "*" else rng.randint(2, 9)
    most = {"shop": a, "lost": a - b - 1, "bags": 9, "sold": a * b - 1, "both": a}[story]
    c = a if story == "both" else rng.randint(2, min(9, most))
    name, other = rng.sample(NAMES, 2)
    words = {"n": name, "m": other, "i": rng.choice(ITEMS), "a": a, "b": b, "c": c}
    phrases = (found.format(**words), final.format(**words))
    s = compute(a, first, b)
    t = compute(s, second, c)

    def told(s: int, second: str, t: int) -> list[tuple[str, str]]:
        return [(body, str(t)) for body in number_bodies(phrases, (a, first, b, s), (s, second, c, t))]

    flip = BACK[second]
    one = equation(a, first, b, s)
    stops = [f"{sentence(phrases[0])} {one}.", f"There is one step, to {WORDS[first][0]}. That step is {one}.",
             f"The numbers that matter are {a} and {b}. {a} {WORDS[first][1]} {b} makes {s}."]  # fmt: skip
    off = [d for d in (-2, -1, 1, 2) if s + d > 0 and compute(s + d, second, c) >= 0]
    slips = [pair for d in off for pair in told(s + d, second, compute(s + d, second, c))]
    slips += [pair for d in (-10, -1, 1, 2) if t + d >= 0 for pair in told(s, second, t + d)]
    return Case(
        core=f"{story} {a} {b} {c}",
        question=question.format(**words),
        kind="number",
        answer=str(t),
        bodies=(*(body for body, _ in told(s, second, t)), f"Here {other_order(story, a, b, c, t)}."),
        misconceptions=(*((body, str(s)) for body in stops), *told(s, flip, compute(s, flip, c))),
        slips=tuple(slips),
    )


# --- pocket_strategyqa: two facts about time, compared ---------------------------------------------------------------
AGES = ("the stone age", "ancient times", "the middle ages", "the age of sail", "the age of steam", "modern times")
PEOPLE = (
    ("a mammoth hunter", "a cave painter", "a flint carver"),
    ("a pharaoh", "a Roman soldier", "a gladiator"),
    ("a Viking", "a knight", "a crusader"),
    ("a pirate", "a musketeer", "a conquistador"),
    ("a cowboy", "a gold miner", "a chimney sweep"),
    ("an astronaut", "a film star", "a jet pilot"),
)
THINGS = (
    ("a campfire", "a stone axe", "a bone needle"),
    ("a chariot", "a coin", "a papyrus scroll"),
    ("a windmill", "a crossbow", "a mechanical clock"),
    ("a telescope", "a microscope", "a thermometer"),
    ("a steam train", "a telegraph", "a bicycle"),
    ("a radio", "a laptop", "a satellite"),
)
AGE_OF = {name: age for table in (PEOPLE, THINGS) for age, row in enumerate(table) for name in row}
TIME_QUESTIONS = {  # "use": could y have used x; "thing", "people": is x earlier than y
    "use": ("Could {y} have used {x}?", "Was {x} already known when {y} lived?",
            "{n} writes a story in which {y} uses {x}. Could that have happened?",
            "In a film that {n} saw, {y} owns {x}. Is that true to history?"),
    "thing": ("Is {x} an older idea than {y}?", "Did people have {x} before they had {y}?",
              "{n} says that {x} came before {y}. Is {n} right?",
              "{n} orders a museum by time. Should {x} stand before {y}?"),
    "people": ("Did {x} live before {y}?", "Could {y} have read about {x} in a history book?",
               "{n} says that {x} lived earlier than {y}. Is {n} right?",
               "{n} orders old portraits by time. Should {x} hang before {y}?"),
}  # fmt: skip


def time_bodies(x: str, y: str, age_x: int, age_y: int, early: bool) -> list[str]:
    """Six arguments about whether x (of age_x) is early enough for y (of age_y); `early` is what they conclude."""
    ax, ay = AGES[age_x], AGES[age_y]
    order = "came before" if age_x < age_y else "came after" if age_x > age_y else "is the same as"
    if early != (age_x <= age_y):  # a reversed comparison
        order = "came before" if early else "came after"
    verdict, other = ("early enough", "too late") if early else ("too late", "early enough")
    fact_x, fact_y = f"{x} belongs to {ax}", f"{y} belongs to {ay}"
    return [
        f"{sentence(fact_x)}. {sentence(fact_y)}. {sentence(ax)} {order} {ay}, so the first is {verdict}.",
        f"{sentence(fact_y)}, while {fact_x}. Since {ax} {order} {ay}, this is {verdict}.",
        f"For a yes, {x} must not be later than {y}. {sentence(fact_x)} and {fact_y}. "
        f"{sentence(ax)} {order} {ay}, which is {verdict}.",
        f"Suppose {x} were {other}. But {fact_x}, {fact_y}, and {ax} {order} {ay}. That cannot be, so it is {verdict}.",
        f"Two facts decide this, {fact_x} and {fact_y}. On a time line {ax} {order} {ay}, and that is {verdict}.",
        f"{sentence(ay)} is when we find {y}. {sentence(ax)} is when we find {x}. The second {order} the first, "
        f"hence {verdict}.",
    ]  # fmt: skip


def strategyqa(rng: Random) -> Case:
    """Is one thing or person early enough for another? Half the answers are yes."""
    relation = rng.choice(tuple(TIME_QUESTIONS))
    first, second = {"use": (THINGS, PEOPLE), "thing": (THINGS, THINGS), "people": (PEOPLE, PEOPLE)}[relation]
    yes = rng.random() < 0.5
    pairs = [(i, j) for i in range(len(AGES)) for j in range(len(AGES)) if i != j or relation == "use"]
    age_x, age_y = rng.choice([(i, j) for i, j in pairs if (i <= j) == yes])
    x, y = rng.choice(first[age_x]), rng.choice(second[age_y])
    answer, wrong = ("yes", "no") if yes else ("no", "yes")
    moved = [(i, age_y) for i in range(len(AGES)) if (i <= age_y) != yes and i != age_y]
    moved += [(age_x, j) for j in range(len(AGES)) if (age_x <= j) != yes and j != age_x]
    moved = moved or [(age_y, age_x)]  # no single slip turns the stone age against modern times
    return Case(
        core=f"{relation} {x} {y}",
        question=rng.choice(TIME_QUESTIONS[relation]).format(x=x, y=y, n=rng.choice(NAMES)),
        kind="boolean",
        answer=answer,
        bodies=tuple(time_bodies(x, y, age_x, age_y, yes)),
        misconceptions=tuple((body, wrong) for body in time_bodies(x, y, age_x, age_y, not yes)),
        slips=tuple((body, wrong) for i, j in moved for body in time_bodies(x, y, i, j, not yes)),
    )
