"""Multiple-choice questions: three of the five small worlds that make the pocket benchmarks.

`arc` asks which object has a property (by what it is made of), `openbookqa` quotes a book fact and needs everyday
knowledge (what sort of animal each option is), `medqa` shows a patient's signs (a toy, not medical advice). Options
are answered by their text: models this small cannot look letters up.
"""

from __future__ import annotations

from random import Random

from labkit.pocket_cases import NAMES, Arguments, Case, listed, sentence

# --- pocket_arc and pocket_openbookqa: every option is of a kind, every kind has properties ------------------------
MATERIALS = {
    "made of iron": ("nail", "anvil", "chain", "hammer", "horseshoe"),
    "made of glass": ("window", "jar", "bottle", "lens", "tumbler"),
    "made of wood": ("oar", "plank", "ladder", "barrel", "broomstick"),
    "made of wool": ("sock", "scarf", "sweater", "mitten", "blanket"),
    "made of rubber": ("tire", "eraser", "balloon", "hose", "bouncy ball"),
}
MATERIAL_TRAITS = {
    "made of iron": ("is pulled by a magnet", "rusts in the rain"),
    "made of glass": ("lets light shine through", "breaks into sharp clear pieces"),
    "made of wood": ("was once part of a tree", "can be sawn into boards"),
    "made of wool": ("was once cut from a sheep", "keeps heat in on a cold day"),
    "made of rubber": ("springs back when stretched", "rubs out pencil marks"),
}
MATERIAL_QUESTIONS = (
    "Which of these {trait}?",
    "{n} is looking for something that {trait}. Which of these is it?",
    "A class tests four things in the lab. Which one {trait}?",
    "{n} says that only one of these {trait}. Which one?",
)
ANIMALS = {
    "a bird": ("penguin", "owl", "duck", "ostrich", "eagle"),
    "a fish": ("shark", "tuna", "eel", "seahorse", "salmon"),
    "an insect": ("ant", "bee", "moth", "beetle", "cricket"),
    "a mammal": ("bat", "whale", "dolphin", "mouse", "seal"),
    "a reptile": ("snake", "turtle", "lizard", "crocodile", "gecko"),
}
ANIMAL_TRAITS = {
    "a bird": ("has feathers", "hatches as a chick"),
    "a fish": ("breathes through gills", "takes its oxygen from water"),
    "an insect": ("walks on six legs", "has a body in three parts"),
    "a mammal": ("feeds its young with milk", "grows hair or fur"),
    "a reptile": ("has dry scaly skin", "sheds its scaly skin"),
}
ANIMAL_QUESTIONS = (
    "A science book says that {kind} {trait}. Which of these animals {trait}?",
    "{n} reads that {kind} {trait}. Of which animal is this true?",
    "The book has a picture of {kind}, which {trait}. Which animal could be in the picture?",
)


def choice_bodies(target: str, options: list[str], kinds: dict[str, str], rule: str, trait: str) -> list[str]:
    """Six arguments that `target` has `trait`, because what is `rule` has it; `kinds` says what each option is."""
    rest = [option for option in options if option != target]
    facts = {option: f"the {option} is {kinds[option]}" for option in options}
    law = f"anything that is {rule} {trait}"
    return [
        f"{sentence(law)}. {sentence(facts[target])}, so it must be the {target}.",
        f"{sentence(listed([facts[option] for option in rest]))}. None of them {trait}. "
        f"Only the {target} is left, and it is {rule}.",
        f"The facts are that {listed([facts[option] for option in options])}. To fit, it has to be {rule}.",
        f"Suppose it is the {target}. We know that {facts[target]}, and {law}. The guess fits.",
        f"One might think of the {rest[0]}. But {facts[rest[0]]}, and nothing like that {trait}. "
        f"In contrast, {facts[target]}, just as it should be.",
        f"What counts is which one is {rule}, since only such a thing {trait}. Among the four that is the {target}.",
    ]


def kind_case(
    rng: Random,
    world: tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]], tuple[str, ...]],
) -> Case:
    """One question of a (members, traits, questions) world; the four options are of four different kinds."""
    members, traits, questions = world
    rule, *others = rng.sample(sorted(members), 4)
    trait = rng.choice(traits[rule])
    kinds = {rng.choice(members[kind]): kind for kind in (rule, *others)}
    gold = next(iter(kinds))
    options = sorted(kinds)
    rng.shuffle(options)
    order = sorted(members)
    following = order[(order.index(rule) + 1) % len(order)]
    follower = next((option for option in options if kinds[option] == following), None)
    misread = follower or options[(options.index(gold) + 1) % 4]  # the next kind's property is taken for this one

    def argue() -> Arguments:
        slips = []
        for wrong in options:
            if wrong != gold:  # two facts swapped
                swapped = kinds | {wrong: rule, gold: kinds[wrong]}
                slips += [(body, wrong) for body in choice_bodies(wrong, options, swapped, rule, trait)]
        bad_law = choice_bodies(misread, options, kinds, kinds[misread], trait)
        return Arguments(
            bodies=tuple(choice_bodies(gold, options, kinds, rule, trait)),
            misconceptions=tuple((body, misread) for body in bad_law),
            slips=tuple(slips),
        )

    question = rng.choice(questions).format(kind=rule, trait=trait, n=rng.choice(NAMES))
    return Case(f"{trait} {gold} {sorted(options)}", question, "choice", gold, argue, tuple(options))


def arc(rng: Random) -> Case:
    """Which of four objects has a property, by its material."""
    return kind_case(rng, (MATERIALS, MATERIAL_TRAITS, MATERIAL_QUESTIONS))


def openbookqa(rng: Random) -> Case:
    """A book fact about a sort of animal; which of four animals it is true of."""
    return kind_case(rng, (ANIMALS, ANIMAL_TRAITS, ANIMAL_QUESTIONS))


# --- pocket_medqa: three of a disease's five signs, with distractors that share some --------------------------------
SIGNS = {
    "flu": ("fever", "cough", "sore muscles", "headache", "shivering"),
    "bronchitis": ("cough", "wheezing", "sore throat", "hoarse voice", "runny nose"),
    "measles": ("fever", "rash", "red eyes", "cough", "runny nose"),
    "hay fever": ("sneezing", "runny nose", "red eyes", "itchy nose", "tiredness"),
    "migraine": ("headache", "nausea", "flashing lights", "tiredness", "stiff neck"),
    "meningitis": ("fever", "headache", "stiff neck", "rash", "nausea"),
    "asthma": ("cough", "wheezing", "tight chest", "short breath", "tiredness"),
    "pneumonia": ("fever", "cough", "chest pain", "short breath", "shivering"),
    "appendicitis": ("belly pain", "fever", "nausea", "lost appetite", "shivering"),
    "food poisoning": ("belly pain", "nausea", "vomiting", "diarrhea", "headache"),
}
JOBS = ("farmer", "teacher", "baker", "sailor", "nurse", "driver", "student", "singer")
MED_QUESTIONS = (
    "A {job} of {age} comes in with {signs}. Which illness is most likely?",
    "A {age} year old {job} has {signs}. What is the most likely illness?",
    "For three days a {job} aged {age} has had {signs}. What explains this best?",
)


def sign_bodies(target: str, options: list[str], signs: list[str], known: dict[str, tuple[str, ...]]) -> list[str]:
    """Six arguments for the illness `target` from three signs, if each illness brought what `known` says."""
    rest = [option for option in options if option != target]
    lacks = {option: next((sign for sign in signs if sign not in known[option]), signs[0]) for option in rest}
    fits = [[option for option in options if sign in known[option]] for sign in signs]
    rival = max(rest, key=lambda option: sum(sign in known[option] for sign in signs))
    return [
        f"{sentence(listed(signs))} together are typical of {target}. "
        f"The other three illnesses do not bring all of them.",
        f"{'. '.join(sentence(f'{option} does not bring {lacks[option]}') for option in rest)}. "
        f"That leaves {target}, which brings it all.",
        f"{sentence(target)} is known for {listed(known[target])}. "
        f"The patient has {signs[0]}, {signs[1]} and also {signs[2]}.",
        f"{'. '.join(f'With {sign} it could be {listed(fit)}' for sign, fit in zip(signs, fits, strict=True))}. "
        f"Only {target} is named each time.",
        f"Suppose it is {target}. We would expect {signs[2]}, {signs[1]} and {signs[0]}, just what the patient has.",
        f"One might think of {rival}. But {rival} does not bring {lacks[rival]}. In contrast, {target} does.",
    ]  # fmt: skip


def mistaken_signs(target: str, gold: str, signs: list[str]) -> dict[str, tuple[str, ...]]:
    """The sign table as someone believes it who takes `target` for the right illness: it trades signs with `gold`."""
    extra = tuple(sign for sign in signs if sign not in SIGNS[target])
    spare = tuple(sign for sign in SIGNS[target] if sign not in signs)
    return SIGNS | {
        target: tuple(sign for sign in SIGNS[target] if sign not in spare[: len(extra)]) + extra,
        gold: tuple(sign for sign in SIGNS[gold] if sign not in extra) + spare[: len(extra)],
    }


def medqa(rng: Random) -> Case:
    """A patient's three signs; the one illness of four that has them all."""
    gold = rng.choice(tuple(SIGNS))
    signs = rng.sample(SIGNS[gold], 3)
    rivals = [name for name in SIGNS if name != gold and not set(signs) <= set(SIGNS[name])]
    options = [gold, *rng.sample(rivals, 3)]
    rng.shuffle(options)
    wrong = [option for option in options if option != gold]
    anchored = max(wrong, key=lambda option: [sign in SIGNS[option] for sign in signs])  # by the first sign alone

    def mistakes(option: str) -> list[tuple[str, str]]:
        return [(body, option) for body in sign_bodies(option, options, signs, mistaken_signs(option, gold, signs))]

    def argue() -> Arguments:
        return Arguments(
            bodies=tuple(sign_bodies(gold, options, signs, SIGNS)),
            misconceptions=tuple(mistakes(anchored)),
            slips=tuple(pair for option in wrong if option != anchored for pair in mistakes(option)),
        )

    question = rng.choice(MED_QUESTIONS)
    question = question.format(job=rng.choice(JOBS), age=rng.randint(21, 69), signs=listed(signs))
    return Case(f"{gold} {sorted(signs)} {sorted(options)}", question, "choice", gold, argue, tuple(options))
