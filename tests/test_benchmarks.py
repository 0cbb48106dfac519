"""Rows of every shape become the same `Problem`; bad rows are named by file, line and column."""

import json

import pytest

from labkit import benchmarks, pocket
from labkit.benchmarks import draw, load, without_leaks
from labkit.config import recipe
from labkit.prompts import INSTRUCTIONS, prompt, worked_examples
from labkit.records import LabError

OPTIONS = {"text": ["nail", "rope", "cup", "leaf"], "label": ["A", "B", "C", "D"]}
ROWS = {
    "gsm8k": {"question": "How many?", "answer": "2 * 617 = <<2*617=1234>>1234\n#### 1,234"},
    "arc_challenge": {"id": "x", "question": "What rusts?", "choices": OPTIONS, "answerKey": "A"},
    "openbookqa": {"id": "x", "question_stem": "What rusts?", "choices": OPTIONS, "answerKey": "D"},
    "strategyqa": {"qid": "x", "question": "Can a cup rust?", "answer": False, "facts": ["Cups are clay."]},
    "medqa_usmle_4opt": {
        "question": "A patient is pale. Which one?",
        "answer": "Iron",
        "options": {"A": "Iron", "B": "Salt", "C": "Rest", "D": "Tea"},
        "answer_idx": "A",
        "meta_info": "step1",
    },
}


def _write(folder, benchmark, rows, split="train", suffix="jsonl"):
    (folder / benchmark).mkdir(exist_ok=True)
    path = folder / benchmark / f"{split}.{suffix}"
    path.write_text(
        rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    return path


@pytest.mark.parametrize(
    ("benchmark", "kind", "answer"),
    [
        ("gsm8k", "number", "1234"),
        ("arc_challenge", "choice", "A"),
        ("openbookqa", "choice", "D"),
        ("strategyqa", "boolean", "no"),
        ("medqa_usmle_4opt", "choice", "A"),
    ],
)
def test_a_row_with_the_hubs_columns_becomes_a_problem(tmp_path, benchmark, kind, answer):
    _write(tmp_path, benchmark, [ROWS[benchmark]])
    (problem,) = load(benchmark, "train", str(tmp_path))
    assert (problem.kind, problem.answer, problem.id) == (kind, answer, f"{benchmark}/train/0")


@pytest.mark.parametrize("labels", [["1", "2", "3", "4"], ["A", "B", "C"], ["A", "B", "C", "D", "E"]])
def test_arc_rows_with_digit_labels_or_3_or_5_options(tmp_path, labels):
    choices = {"text": [f"option {label}" for label in labels], "label": labels}
    _write(tmp_path, "arc_challenge", [{"question": "Which?", "choices": choices, "answerKey": labels[2]}])
    (problem,) = load("arc_challenge", "train", str(tmp_path))
    assert problem.answer == "C" and problem.labels == tuple("ABCDE"[: len(labels)])


def test_every_real_row_is_read(real_rows):
    for benchmark in benchmarks.BENCHMARKS:
        train, test = load(benchmark, "train", str(real_rows)), load(benchmark, "test", str(real_rows))
        assert (len(train), len(test)) == (300, 200)
        assert len(without_leaks(train, test)) == 300


@pytest.mark.parametrize(
    ("row", "kind", "answer"),
    [
        ({"question": "2 + 2?", "answer": 4}, "number", "4"),
        ({"question": "2 + 2?", "answer": "1,004.5"}, "number", "1004.5"),
        ({"question": "Wet?", "answer": True}, "boolean", "yes"),
        ({"question": "Which?", "answer": "rope", "choices": ["nail", "rope"]}, "choice", "B"),
        ({"question": "Which?", "answer": "b", "choices": "nail|rope"}, "choice", "B"),
        ({"question": "Capital of France?", "answer": "Paris"}, "text", "Paris"),
    ],
)
def test_your_own_file_needs_a_question_an_answer_and_maybe_choices(tmp_path, row, kind, answer):
    _write(tmp_path, "mine", [row])
    (problem,) = load("mine", "train", str(tmp_path))
    assert (problem.kind, problem.answer) == (kind, answer)


def test_your_own_csv_is_cut_into_disjoint_train_and_test(tmp_path):
    path = tmp_path / "sums.csv"
    path.write_text("question,answer\n" + "".join(f'"What is {i}, plus 1?",{i + 1}\n' for i in range(100)))
    train, test = load(str(path), "train"), load(str(path), "test")
    assert 60 < len(train) < 80 and 10 < len(test) < 30
    assert not {p.question for p in train} & {p.question for p in test}
    assert test[0].id == "sums/test/0"


def test_training_rows_that_the_test_split_asks_too_are_left_out(tmp_path):
    _write(
        tmp_path, "mine", [{"question": "Is  water wet?", "answer": True}, {"question": "Is fire?", "answer": False}]
    )
    _write(tmp_path, "mine", [{"question": "is water WET?", "answer": True}], "test")
    clean = without_leaks(load("mine", "train", str(tmp_path)), load("mine", "test", str(tmp_path)))
    assert [problem.question for problem in clean] == ["Is fire?"]


@pytest.mark.parametrize(
    ("benchmark", "rows", "said"),
    [
        ("gsm8k", '{"question": "x", "answer": "#### 1"}\n{"question": ', ["train.jsonl, line 2", "not JSON"]),
        ("gsm8k", [{"question": "x"}], ["line 1", "column 'answer'", "found question"]),
        ("gsm8k", [{"question": "x", "answer": "no number"}], ["line 1", "not a number"]),
        ("gsm8k", "[1, 2]\n", ["line 1", "object"]),
        ("gsm8k", "", ["no questions"]),
        ("gsm8k", [{"question": " ", "answer": "#### 1"}], ["line 1", "empty"]),
        ("arc_challenge", [{**ROWS["arc_challenge"], "answerKey": "E"}], ["line 1", "'E'", "A, B, C, D"]),
        ("strategyqa", [{"question": "x", "answer": "yes"}], ["'yes' is not true or false"]),
        ("mine", [{"question": "x", "answer": "saw", "choices": ["nail", "rope"]}], ["'saw' is not among the choices"]),
        ("mine", [{"question": "x", "answer": "a", "choices": ["a"]}], ["1 choices"]),
        ("mine", [{"question": 7, "answer": "a"}], ["line 1", "not text"]),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_reason(tmp_path, benchmark, rows, said):
    _write(tmp_path, benchmark, rows)
    with pytest.raises(LabError) as error:
        load(benchmark, "train", str(tmp_path))
    assert all(part in str(error.value) for part in said), error.value


def test_what_is_not_there_is_said_with_what_is(tmp_path):
    _write(tmp_path, "mine", [{"question": "x", "answer": "a"}])
    with pytest.raises(LabError, match="it has mine"):
        load("other", "train", str(tmp_path))
    with pytest.raises(LabError, match=r"no test\.jsonl or test\.csv"):
        load("mine", "test", str(tmp_path))
    with pytest.raises(LabError, match="unknown benchmark 'mmlu': one of medqa_usmle_4opt"):
        load("mmlu", "test")
    with pytest.raises(LabError, match="use --data FOLDER"):
        load("gsm8k", "test")  # the hub cannot be reached in tests


def test_the_prompt_asks_for_reasoning_and_one_last_answer_line(tmp_path):
    _write(tmp_path, "arc_challenge", [ROWS["arc_challenge"]])
    (problem,) = load("arc_challenge", "train", str(tmp_path))
    lines = prompt(problem).split("\n")
    assert lines[:3] == ["What rusts?", "A. nail", "B. rope"] and lines[-1] == INSTRUCTIONS["choice"]
    assert prompt(problem, "Be brief.").endswith("Be brief.")


def test_worked_examples_show_the_asked_format_and_come_from_no_benchmark(real_rows):
    for benchmark in benchmarks.BENCHMARKS:
        problem = load(benchmark, "test", str(real_rows))[0]
        ((question, answer),) = worked_examples(problem, 1)
        assert question.endswith(INSTRUCTIONS[problem.kind]) and "\nAnswer: " in answer
        assert worked_examples(problem, 0) == ()


def test_the_seed_draws_the_questions_and_the_test_split_is_the_same_for_all(real_rows):
    train = load("gsm8k", "train", str(real_rows))
    assert draw(train, 20, 0) == draw(train, 20, 0) != draw(train, 20, 1)
    assert draw(train, None, 0) == draw(train, 999, 0) == train


def test_the_pocket_models_are_asked_in_the_words_they_were_trained_on():
    for benchmark in pocket.BENCHMARKS:
        problem = pocket.problems(benchmark, "test", 1)[0]
        assert prompt(problem, recipe("pocket").instruction) == pocket.prompt(problem)
