"""Number stories and yes/no questions: two of the five small worlds that make the pocket benchmarks.

`gsm8k` and `strategyqa` draw one `Case` each: a question of their namesake's shape in plain English, six ways to argue
for the right answer (forward, facts first, backwards, by contradiction) and wrong arguments of two sorts. All that
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
    """A two-step number story; numbers stay below 40, so that a tiny model can learn all sums."""
    story = rng.choice(tuple(STORIES))
    first, second, question, found, final = STORIES[story]
    a = rng.randint(*{"*": (2, 4), "-": (13, 18), "+": (5, 12)}[first])
    b = rng.randint(3 if first == "*" else 2, 7)
    most = {"shop": a, "lost": a - b - 1, "bags": 7, "sold": a * b - 1, "both": a}[story]
    c = a if story == "both" else rng.randint(2, min(7, most))
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


# --- pocket_strategyqa: two facts, compared -------------------------------------------------------------------------
HOMES = {  # home: (animals, places)
    "the desert": (("a camel", "a scorpion", "a rattlesnake", "a desert fox"),
                   ("the Sahara", "the Kalahari", "the Mojave", "the Gobi")),
    "the jungle": (("a toucan", "a jaguar", "a gorilla", "a sloth"),
                   ("the Amazon", "the Congo", "Borneo", "Sumatra")),
    "the sea": (("an octopus", "a jellyfish", "a swordfish", "a blue whale"),
                ("the Pacific", "the Atlantic", "the Indian Ocean", "the Baltic")),
    "the ice": (("a polar bear", "a walrus", "an arctic fox", "a narwhal"),
                ("Greenland", "Svalbard", "the Arctic", "Antarctica")),
    "the plains": (("a zebra", "a giraffe", "a lion", "a rhino"),
                   ("the Serengeti", "the Pampas", "Kansas", "the Prairies")),
    "the mountains": (("a yak", "an ibex", "a condor", "a snow leopard"),
                      ("the Alps", "the Andes", "the Rockies", "the Himalayas")),
}  # fmt: skip
HOME_QUESTIONS = (  # what is asked of an animal and a place, and of two animals
    (
        "Would {x} find the surroundings it needs in {y}?",
        "Is the land of {y} the sort of home that {x} has?",
        "{n} paints {x} in {y}. Is that its sort of home?",
        "{n} looks for {x} in {y}. Is that the right sort of place?",
    ),
    (
        "Do {x} and {y} share the same sort of home?",
        "Could a film about one sort of home show both {x} and {y}?",
        "{n} paints {x} next to {y}. Do they need the same surroundings?",
        "{n} wants to see {x} and {y}. Is one sort of place enough?",
    ),
)


def home_bodies(x: str, y: str, home_x: str, home_y: str, same: bool) -> list[str]:
    """Six arguments about whether x (of home_x) and y (of home_y) go together; `same` is what they conclude."""
    fact_x, fact_y = f"{x} belongs to {home_x}", f"{y} belongs to {home_y}"
    match, other = ("match", "differ") if same else ("differ", "match")
    return [
        f"{sentence(fact_x)}. {sentence(fact_y)}. The two {match}.",
        f"{sentence(fact_y)}, while {fact_x}. Side by side, they {match}.",
        f"For a yes, {x} and {y} must be of one sort. Now {x} goes with {home_x}, and {y} with {home_y}. "
        f"The condition {'holds' if same else 'fails'}.",
        f"Suppose that they {other}. But {fact_x} and {fact_y}. That cannot be, since these {match}.",
        f"Two facts decide this. One is that {fact_x}, the other that {fact_y}. We see that they {match}.",
        f"What belongs to {home_y}? Among others {y}. And what belongs to {home_x}? Among others {x}. "
        f"So the answers {match}.",
    ]


def strategyqa(rng: Random) -> Case:
    """Do an animal and a place, or two animals, go together? Half the answers are yes."""
    second, homes = rng.choice((0, 1)), tuple(HOMES)
    home_x, elsewhere = rng.sample(homes, 2)
    yes = rng.random() < 0.5
    home_y = home_x if yes else elsewhere
    x = rng.choice(HOMES[home_x][0])
    y = rng.choice([name for name in HOMES[home_y][1 - second] if name != x])
    wrong = "no" if yes else "yes"
    following = homes[(homes.index(home_x) + 1) % len(homes)]  # a fixed confusion about where the animal lives
    confused = (following, home_y) if yes else (home_y, home_y)
    misread = home_bodies(x, y, home_x, home_y, not yes)  # the facts are right, the comparison is not
    moved = [(home_x, home) for home in homes if home != home_x] if yes else [(home_x, home_x)]
    moved += [(home, home_y) for home in homes if home not in (home_y, following)] if yes else []
    return Case(
        core=f"{x} {y}" if second == 0 else " ".join(sorted((x, y))),
        question=rng.choice(HOME_QUESTIONS[second]).format(x=x, y=y, n=rng.choice(NAMES)),
        kind="boolean",
        answer="yes" if yes else "no",
        bodies=tuple(home_bodies(x, y, home_x, home_y, yes)),
        misconceptions=tuple((body, wrong) for body in home_bodies(x, y, *confused, not yes)),
        slips=tuple((body, wrong) for pair in moved for body in home_bodies(x, y, *pair, not yes))
        + tuple((body, wrong) for body in misread),
    )
