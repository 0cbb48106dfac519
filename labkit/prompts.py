"""The wording of the prompt: the question, its options, the Reason-then-Answer instruction, and worked examples."""

from __future__ import annotations

from labkit.records import Problem

INSTRUCTIONS = {
    "number": "Think step by step. End with one last line `Answer: X`, where X is a number.",
    "choice": "Think step by step. End with one last line `Answer: X`, where X is the letter of the right option.",
    "boolean": "Think step by step. End with one last line `Answer: X`, where X is yes or no.",
    "text": "Think step by step. End with one last line `Answer: X`.",
}


def prompt(problem: Problem, instruction: str | None = None) -> str:
    """The user turn: question, options, and the Reason-then-Answer instruction as last line."""
    lines = [problem.question.strip()]
    if problem.labels:
        lines += [f"{label}. {text}" for label, text in zip(problem.labels, problem.choices, strict=True)]
    elif problem.choices:
        lines.append(f"Options: {', '.join(problem.choices)}")
    return "\n".join([*lines, instruction or INSTRUCTIONS[problem.kind]])


# Worked examples in our own words, one per kind of question: shots never come from a benchmark's rows.
_EXAMPLES = {
    "number": (
        Problem("shot/number", "shot", "train",
                "A baker fills 6 trays with 8 rolls each and sells 30. How many are left?", "number", "18"),
        "The baker makes 6 * 8 = 48 rolls.\nAfter selling 30 there are 48 - 30 = 18 rolls left.\nAnswer: 18",
    ),
    "choice": (
        Problem("shot/choice", "shot", "train", "Which of these would rust if left in the rain?", "choice", "C",
                ("a wooden spoon", "a glass jar", "an iron nail", "a plastic cup"), ("A", "B", "C", "D")),
        "Rust forms when iron meets water and air.\nOf the options only the nail is made of iron.\nAnswer: C",
    ),
    "boolean": (
        Problem("shot/boolean", "shot", "train", "Could a whale cross the Sahara by swimming?", "boolean", "no"),
        "Whales swim in deep water.\nThe Sahara is a desert without seas or deep rivers.\nAnswer: no",
    ),
}  # fmt: skip


def worked_examples(problem: Problem, shots: int, instruction: str | None = None) -> tuple[tuple[str, str], ...]:
    """(question, answer) turns to put before the problem; empty for 0 shots and for kinds without an example."""
    if not shots or problem.kind not in _EXAMPLES:
        return ()
    example, answer = _EXAMPLES[problem.kind]
    return ((prompt(example, instruction), answer),)
