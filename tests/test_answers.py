"""What counts as a final answer, and what is left unread: the cases of data/answers.jsonl and the promises behind them.

A case: kind ("option" is choice without letters), text, the answer and the rule that must come out, why it is there;
options and labels where they are not the usual four.
"""

import json
import random
from pathlib import Path

import pytest
from conftest import seconds

from labkit.answers import RULES, STRICT, grade, is_correct, read, readings
from labkit.records import Completion, LabError, Problem

CASES = [json.loads(line) for line in (Path(__file__).parent / "data" / "answers.jsonl").read_text().splitlines()]
BENCHMARKS = Path(__file__).parents[2] / "shared" / "benchmarks"
OPTIONS = ("rope", "nail", "wood", "iron nail")
GOLD = {"number": "18", "choice": "B", "option": "nail", "boolean": "yes", "text": "New York"}


def problem(kind, gold=None, options=OPTIONS, labels=None):
    labels = labels or "ABCDE"[: len(options)]
    return Problem(
        id="own/test/0",
        benchmark="own",
        split="test",
        question="Which?",
        kind="choice" if kind == "option" else kind,
        answer=gold or GOLD[kind],
        choices=tuple(options) if kind in ("choice", "option") else (),
        labels=tuple(labels) if kind == "choice" else (),
    )


def of(case):
    return problem(case["kind"], None, case.get("options", OPTIONS), case.get("labels"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}: {case['why']}")
def test_case(case):
    reading = read(case["text"], of(case))
    assert (reading.answer, reading.rule) == (case["answer"], case["rule"])
    assert reading.strict == (reading.answer is not None and reading.rule in STRICT)


@pytest.mark.parametrize(
    ("kind", "text", "raw"),
    [
        ("number", "It is 5.\nAnswer: **$1,234.50**", "$1,234.50"),
        ("number", "\\boxed{\\frac{3}{4}}", "\\frac{3}{4}"),
        ("number", "<think>1</think>Caf\u00e9: so the answer is \u0661\u0668.", "\u0661\u0668"),
        ("choice", "Answer: (b) nail", "b"),
        ("choice", "So it must be the iron nail.", "iron nail"),
        ("option", "Answer: the Nail.", "the Nail"),
        ("boolean", "Answer: **Yes**, they do", "Yes"),
        ("number", "Answer: 5 or 6.", "5 or 6"),
    ],
)
def test_the_span_holds_the_answer_as_written(kind, text, raw):
    start, end = read(text, problem(kind)).span
    assert text[start:end] == raw


@pytest.mark.parametrize(
    ("kind", "gold", "right", "wrong"),
    [
        ("number", "18", ["18", "18.0", "18.00", "+18", "$18", "36/2"], ["-18", "18.01", "1.8", "180"]),
        ("number", "0.75", ["0.75", ".75", "3/4"], ["0.7", "75"]),
        ("number", "1234", ["1,234", "1234.0"], ["1.234"]),
        ("number", "-10", ["-10", "\u221210"], ["10"]),
        ("choice", "B", ["B", "b", "nail"], ["A", "rope", "iron nail"]),
        ("option", "nail", ["nail", "Nail"], ["iron nail", "B"]),
        ("boolean", "yes", ["yes", "Yes", "true"], ["no", "false"]),
        ("text", "New York", ["new york", "New  York.", '"New York"'], ["York"]),
    ],
)
def test_two_forms_of_one_answer_are_equal(kind, gold, right, wrong):
    assert all(is_correct(answer, problem(kind, gold)) for answer in right)
    assert not any(is_correct(answer, problem(kind, gold)) for answer in wrong)


def test_a_gold_answer_that_is_not_of_its_kind_is_an_error_and_not_a_wrong_answer():
    with pytest.raises(LabError, match="own/test/0: gold answer 'many' is no number"):
        is_correct("18", problem("number", gold="many"))


@pytest.mark.parametrize(
    ("text", "finish", "outcome"),
    [
        ("Answer: 18", "stop", "correct"),
        ("Answer: 17", "stop", "wrong"),
        ("So 18.", "stop", "correct"),
        ("Answer: 17 or 18", "stop", "unparsed"),
        ("", "stop", "unparsed"),
        ("9 * 2 =", "length", "truncated"),
        ("Answer: 18\nBut wait, 9 *", "length", "truncated"),
    ],
)
def test_the_four_outcomes(text, finish, outcome):
    assert grade(Completion(text, finish, 9), problem("number"))[0] == outcome


def test_the_workbench_sees_every_rule_in_order_also_those_that_found_nothing():
    rows = readings("So \\boxed{17}.\nAnswer: 17 or 18\n#### 18", problem("number"))
    assert tuple(row.rule for row in rows) == RULES
    assert [row.answer for row in rows] == [None, None, "17", "18", "18", None]
    assert [row.span is None for row in rows] == [False, True, False, False, False, True]
    assert [row.strict for row in rows] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("kind", sorted(GOLD))
def test_any_text_is_read_without_error_and_its_answer_reads_as_itself(kind):
    words = [
        "Answer: ",
        "the answer is ",
        "**",
        "\\boxed{",
        "}",
        "#### ",
        " ",
        "\n",
        "18",
        "1,234",
        "-",
        "3/4",
        "A",
        "B",
    ]
    words += ["(C)", "nail", "rope", "or ", "not ", "yes", "no", ".", ",", "$", "%", "=", "x", "Question: ", "</think>"]
    words += ["\u00bd", "\u0661", "\u2212", "\u201c", "\r\n", "\u200b", "\u0130", "\u00df", "\ufb01", "\x00", "\ud800"]
    rng = random.Random(kind)
    for _ in range(1500):
        text = "".join(rng.choices(words, k=rng.randint(1, 16)))
        for reading in [read(text, problem(kind)), *readings(text, problem(kind))]:
            assert reading.span is None or 0 <= reading.span[0] <= reading.span[1] <= len(text), text
            if reading.answer is not None and kind != "text":  # a text may hold an announcement itself
                assert read(f"Answer: {reading.answer}", problem(kind)).answer == reading.answer, text


HOSTILE = [
    "Answer: ",
    "Answer:\n",
    "answer to ",
    "the answer is ",
    "1,",
    "111,",
    "9",
    "1 ",
    "1/",
    " ",
    "\n",
    "**",
    "#### ",
]
HOSTILE += ["\\boxed{", "Question: ", "Question:\nAnswer: 5\n", "<think>", "x = 5, ", "\u0661"]
HOSTILE = [("number", piece) for piece in HOSTILE]
HOSTILE += [("choice", piece) for piece in ("(A)", "A, ", "nail ", "B) nail ", "a")] + [
    ("boolean", "yes "),
    ("boolean", "no, "),
]


@pytest.mark.parametrize(("kind", "piece"), HOSTILE)
def test_a_megabyte_of_anything_takes_less_than_a_second(kind, piece):
    text = (piece * (1_000_000 // len(piece) + 1))[:1_000_000]
    assert seconds(read, text, problem(kind)) < 1


def rows():
    for path in sorted(BENCHMARKS.glob("*/*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            yield from real(f"{path.parent.name}/{path.stem}/{number}", json.loads(line))


def real(name, row):
    """The row as a Problem, and where it has options an option's text that is not the gold one."""
    base = {"id": name, "benchmark": name.split("/")[0], "split": name.split("/")[1], "question": "?"}
    if name.startswith("gsm8k"):
        yield Problem(**base, kind="number", answer=row["answer"].split("####")[1].strip())
    elif name.startswith("strategyqa"):
        yield Problem(**base, kind="boolean", answer="yes" if row["answer"] else "no")
    else:
        found = row.get("choices") or {"text": row["options"].values(), "label": row["options"]}
        labels, texts = list(found["label"]), tuple(found["text"])
        gold = "ABCDE"[labels.index(row.get("answerKey") or row["answer_idx"])]
        yield Problem(**base, kind="choice", answer=gold, choices=texts, labels=tuple("ABCDE"[: len(texts)]))


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="no real rows beside the project (shared/benchmarks)")
def test_the_gold_answer_of_every_real_row_grades_as_correct_and_a_contradiction_does_not():
    problems = list(rows())
    assert len(problems) == 2500
    assert [one.id for one in problems if outcome(f"Reasoning.\nAnswer: {one.answer}", one) != "correct"] == []
    for one in problems[::5]:
        texts = dict(zip(one.labels, one.choices, strict=True))
        right = [texts[one.answer], f"({one.answer}) {texts[one.answer]}"] if texts else [one.answer]
        for said in right:
            assert outcome(f"Reasoning.\n**Answer:** **{said}**.", one) == "correct", (one, said)
            assert outcome(f"Thus the answer is {said}.\nI hope this helps.", one) == "correct", (one, said)
        for label in set(texts) - {one.answer}:
            assert outcome(f"Answer: ({one.answer}) {texts[label]}", one) == "unparsed", (one, label)


def outcome(text, one):
    return grade(Completion(text, "stop", 9), one)[0]
