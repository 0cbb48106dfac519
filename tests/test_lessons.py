"""What the notebooks lean on: runs beside them, smoke sizes, exercises that answer, and runs of an own algorithm."""

import numpy as np
import pytest

from labkit import benchmarks, lessons, models, runs
from labkit.answers import grade
from labkit.compare import last_answers
from labkit.generation import TransformersGenerator
from labkit.orpo import token_logps
from labkit.packing import Example
from labkit.records import Answer, LabError, Problem, Score, Trace
from labkit.stages import evaluate


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABKIT_SMOKE", "1")
    return lessons.settings("pocket", benchmarks="pocket_arc", problems=3, test_problems=6, k=2, epochs=1)


def test_smoke_caps_every_count_and_nothing_else(small, monkeypatch):
    assert small.problems == 3 and small.max_draws == 4 and small.learning_rate == 1e-3
    assert lessons.few(100) == 4 and lessons.few(2) == 2
    monkeypatch.delenv("LABKIT_SMOKE")
    assert lessons.settings("pocket", k=5).k == 5 and lessons.few(100) == 100


def test_a_run_tells_its_progress_on_the_ordinary_stream_and_is_not_repeated(small, capsys):
    folder = lessons.run("first", small)
    said = capsys.readouterr()
    assert "mean accuracy" in said.out and not said.err
    assert folder.as_posix() == "runs/first" and runs.status(folder)["state"] == "done"
    before = (folder / "events.jsonl").read_bytes()
    lessons.run("first", small)
    assert (folder / "events.jsonl").read_bytes() == before
    with pytest.raises(LabError, match="exists with k"):
        lessons.run("first", small.model_copy(update={"k": 1}))
    assert {score.epoch for score in runs.records(folder, "scores.jsonl", Score)} == {0, 1}


def test_an_own_algorithm_runs_in_the_same_folder(small):
    folder = lessons.run("mine", small, algorithm=evaluate)
    assert {score.epoch for score in runs.records(folder, "scores.jsonl", Score)} == {0}
    assert not (folder / "traces").exists()


def test_an_own_verifier_decides_in_sampling_and_in_evaluation(small):
    def never(completion, problem):
        outcome, reading = grade(completion, problem)
        return ("wrong" if outcome == "correct" else outcome), reading

    folder = lessons.run("strict", small.model_copy(update={"method": "diverse-cot"}), algorithm=both, grader=never)
    assert all(answer.outcome != "correct" for answer in runs.records(folder, "answers/epoch-0.jsonl", Answer))
    drawn = runs.records(folder, "traces/student-0.jsonl", Trace)
    assert drawn and all(trace.outcome != "correct" for trace in drawn) and any(t.use == "kept" for t in drawn)


def test_answered_gives_every_draw_of_every_question_with_its_verdict(small):
    speaker = TransformersGenerator(*models.load(small.student), small.student)
    asked = benchmarks.load("pocket_arc", "test")[:3]
    found = lessons.answered(speaker, asked, 4, 0.8, small)
    assert [len(draws) for draws, _ in found] == [4, 4, 4]
    for problem, (draws, verdicts) in zip(asked, found, strict=True):
        assert verdicts == [grade(draw, problem)[0] for draw in draws] and len({draw.text for draw in draws}) > 1
    again = lessons.answered(speaker, asked[1:], 2, 0.8, small)
    told = [[draw.text for draw in draws] for draws, _ in (again[0], found[1])]
    assert told[0] == told[1][:2]  # a draw is addressed: neither its company nor how many are asked for matters


def both(lab):
    """Evaluate and sample the student's wrong traces."""
    evaluate(lab)
    lessons.distill.sample(lab, lessons.distill.Job("student-0", "student", 0, "wrong"), {p.id: 1 for p in lab.train})


def test_log_probabilities_are_those_that_training_sees():
    model, tokenizer = models.load("pocket:student-neox")
    question = benchmarks.load("pocket_arc", "test")[0].question
    (found,) = lessons.mean_logps(model, tokenizer, [question], ["It is so.\nAnswer: nail"])
    ids = tuple(lessons.prompt_ids(tokenizer, question))
    response = lessons.encode_response(tokenizer, "It is so.\nAnswer: nail")
    [[(logps, _)]] = token_logps(model, [Example(ids, (response,), (None,))])
    assert found == pytest.approx(float(logps.mean())) and found < 0


@pytest.mark.parametrize(
    ("given", "said"), [(..., "Waiting"), (4, "Right."), (5, "Not yet. Hint: two and two"), ("4", "Not yet.")]
)
def test_an_exercise_answers(given, said, capsys):
    lessons.check(given, lambda value: value - 1 == 3, "two and two")
    assert capsys.readouterr().out.startswith(said)


def test_a_run_copies_what_a_run_like_it_has_made_and_gives_the_same_bytes(small):
    first = lessons.run("first", small)
    second = lessons.run("second", small.model_copy(update={"lam": 0.5}), like=first)
    alone = lessons.run("alone", small.model_copy(update={"lam": 0.5}))
    for file in ("traces/teacher.jsonl", "traces/student-0.jsonl", "answers/epoch-0.jsonl", "answers/epoch-1.jsonl"):
        assert (second / file).read_bytes() == (alone / file).read_bytes(), file
    assert sum("copied_from" in event for event in runs.rows(second / "events.jsonl")) == 2


def test_draws_are_those_of_a_run_and_rows_come_by_name(small):
    cells = lessons.run_methods("few", small, 1, ("diverse-cot-x2", "orpo-off"))
    assert list(cells) == [("diverse-cot-x2", 0), ("orpo-off", 0)]
    folder = cells["orpo-off", 0]
    assert runs.load_config(cells["diverse-cot-x2", 0]).epochs == 2
    train = [p for p in runs.records(folder, "problems.jsonl", Problem) if p.split == "train"]
    speaker = TransformersGenerator(*models.load(small.student), small.student)
    assert lessons.draws(speaker, train, "student", "wrong", small) == runs.records(
        folder, "traces/student-0.jsonl", Trace
    )
    [row] = lessons.negatives(folder)
    assert row["fresh draws"] == 0 and row["epoch"] == 1 and 0 < row["different"] <= 1
    answers = last_answers(folder)
    asked = {p.id: p for p in runs.records(folder, "problems.jsonl", Problem)}
    assert lessons.share_right(answers, asked) == np.mean([a.outcome == "correct" for a in answers.values()])


def test_a_run_can_be_asked_beforehand_to_stop_at_a_stage(small):
    config = small.model_copy(update={"epochs": 2})
    lessons.stop_at("halved", "epoch 2")
    folder = lessons.run("halved", config)
    assert runs.status(folder)["state"] == "stopped" and runs.status(folder)["epoch"] == 1
    assert runs.status(lessons.run("halved", config))["state"] == "done"


def test_marked_words_are_those_that_the_other_text_lacks():
    assert lessons.marked("the nail rusts", "the cup rusts") == "the [nail] rusts"
    assert lessons.marked("same", "same") == "same"
