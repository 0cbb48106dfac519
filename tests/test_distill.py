"""The whole job on real pocket models: it can be killed anywhere, and the finished run has the same bytes."""

import json
from importlib import metadata
from pathlib import Path

import pytest
import torch
from forked import distilling, end, said, wait_for

from labkit import compare, distill, methods, runs
from labkit.config import recipe
from labkit.models import load, save
from labkit.records import Answer, Score, Trace, Triplet

# small chunks and frequent checkpoints, so that there are many moments to be killed at
SETTINGS = {"benchmarks": "pocket_arc,pocket_gsm8k", "problems": 8, "test_problems": 16, "k": 4, "epochs": 2} | {
    "chunk": 8, "checkpoint_steps": 2,
}  # fmt: skip
SAME = ("problems.jsonl", "scores.jsonl", "traces/*.jsonl", "triplets/*.jsonl", "answers/*.jsonl")


def _bytes(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for pattern in SAME for p in sorted(folder.glob(pattern))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nobody interrupts."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    distill.prepare(folder, recipe("pocket-quick", SETTINGS))
    assert distill.run(folder) == "done"
    return folder


def test_a_run_ends_with_everything_on_disk(whole):
    scores = runs.records(whole, "scores.jsonl", Score)
    assert sorted({score.epoch for score in scores}) == [0, 1, 2] and len(scores) == 6
    assert all(score.correct + score.wrong + score.unparsed + score.truncated == score.total == 16 for score in scores)
    assert runs.status(whole)["state"] == "done"
    model, tokenizer = load(str(whole / "student"))
    assert model.num_parameters() > 0 and tokenizer.chat_template
    assert not list(whole.glob("checkpoints/*")) and not list(whole.rglob("*.new"))
    (started,) = [row for row in runs.rows(whole / "events.jsonl") if row["event"] == "started"]
    assert started["versions"]["torch"] == metadata.version("torch")


def test_the_pools_hold_what_the_paper_asks_for(whole):
    teacher = runs.records(whole, "traces/teacher.jsonl", Trace)
    kept = [trace for trace in teacher if trace.use == "kept"]
    assert kept and all(trace.outcome == "correct" and trace.strict and trace.finish == "stop" for trace in kept)
    assert all(trace.rouge is not None and trace.rouge <= 0.8 for trace in kept)
    student = [trace for trace in runs.records(whole, "traces/student-0.jsonl", Trace) if trace.use == "kept"]
    assert student and all(trace.outcome == "wrong" and trace.side == "student" for trace in student)
    assert any(trace.use == "near-copy" and trace.rouge > 0.8 for trace in teacher)


def test_the_second_epoch_mixes_negatives_of_the_newest_student(whole):
    first, second = (runs.records(whole, f"triplets/epoch-{epoch}.jsonl", Triplet) for epoch in (1, 2))
    assert {pair.rejected_epoch for pair in first} <= {0, None}
    assert {0, 1} <= {pair.rejected_epoch for pair in second}
    spoken = {(t.problem, t.draw): t.text for t in runs.records(whole, "traces/student-1.jsonl", Trace)}
    fresh = [pair for pair in second if pair.rejected_epoch == 1]
    assert all(spoken[pair.problem, pair.rejected_draw] == pair.rejected for pair in fresh)


def test_train_and_test_questions_are_disjoint(whole):
    rows = [json.loads(line) for line in (whole / "problems.jsonl").read_text().splitlines()]
    asked = {
        split: {(row["question"], *sorted(row["choices"])) for row in rows if row["split"] == split}
        for split in ("train", "test")
    }
    assert len(asked["train"]) == 16 and not asked["train"] & asked["test"]


def test_metrics_have_the_names_and_the_schedule(whole):
    rows = list(runs.rows(whole / "metrics.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert {"loss", "nll_loss", "log_odds_ratio", "rewards/margins", "logps/chosen", "grad_norm"} <= set(rows[0])
    rates = [row["learning_rate"] for row in rows]
    peak = rates.index(max(rates))
    assert rates[peak:] == sorted(rates[peak:], reverse=True)  # one warm-up and one cosine for the whole run
    assert rates[-1] < 1e-9


def test_killed_again_and_again_it_ends_with_the_same_bytes(whole):
    folder = whole.parent / "killed"
    distill.prepare(folder, recipe("pocket-quick", SETTINGS))
    moments = {
        "answering": lambda: (folder / "answers").exists(),
        "teacher's second chunk": lambda: runs.done(folder, "traces/teacher.jsonl") >= 16,
        "fourth step": lambda: len(list(runs.rows(folder / "metrics.jsonl"))) >= 4,
        "first checkpoint of an epoch": lambda: any(p.name.endswith("epoch-1") for p in folder.glob("checkpoints/*")),
        "refreshing": lambda: runs.done(folder, "traces/student-1.jsonl") >= 8,
        "last epoch": lambda: json.loads((folder / "status.json").read_text())["stage"] == "after epoch 2",
    }
    for moment, happened in moments.items():
        child = distilling(folder)
        wait_for(child, happened, folder, moment)
        child.kill()
        end(child)
        assert runs.status(folder)["state"] == "died"
    assert distill.run(folder) == "done"
    assert _bytes(folder) == _bytes(whole)
    assert not list(folder.rglob("*.new"))


def test_a_stopped_run_says_how_to_continue_and_ends_with_the_same_bytes(whole):
    folder = whole.parent / "stopped"
    distill.prepare(folder, recipe("pocket-quick", SETTINGS))
    child = distilling(folder)
    wait_for(child, lambda: len(list(runs.rows(folder / "metrics.jsonl"))) >= 5, folder)
    child.terminate()
    assert end(child) == 3 and "labkit distill stopped" in said(folder)
    assert runs.status(folder)["state"] == "stopped" and list(folder.glob("checkpoints/step-*"))
    assert distill.run(folder) == "done"
    assert _bytes(folder) == _bytes(whole)


def test_finished_is_finished(whole):
    before = _bytes(whole)
    assert distill.run(whole) == "done"
    assert _bytes(whole) == before


def test_a_loss_that_is_not_finite_stops_the_run_with_its_reason(tmp_path):
    model, tokenizer = load("pocket:student-neox")
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1e30)
    save(model, tokenizer, tmp_path / "sick")
    folder = tmp_path / "diverged"
    settings = {
        **SETTINGS,
        "method": "diverse-cot",
        "student": str(tmp_path / "sick"),
        "problems": 2,
        "test_problems": 2,
    }
    distill.prepare(folder, recipe("pocket-quick", settings))
    with pytest.raises(FloatingPointError):
        distill.run(folder)
    state = runs.status(folder)
    assert state["state"] == "failed" and "lower learning_rate" in state["reason"]
    assert "Traceback" in (folder / "log.txt").read_text()


def test_the_six_methods_see_the_same_questions_and_share_what_they_can(tmp_path):
    cells = methods.group(tmp_path, "m", recipe("pocket-quick", {**SETTINGS, "problems": 4, "epochs": 2}), seeds=1)
    assert set(methods.run_group(cells).values()) == {"done"}
    folders = {method: folder for (method, _), (folder, _) in cells.items()}
    trained = [folder for method, folder in folders.items() if method != "zero-shot"]
    assert len({(folder / "traces/teacher.jsonl").read_bytes() for folder in trained}) == 1
    assert len({(folder / "answers/epoch-0.jsonl").read_bytes() for folder in folders.values()}) == 1
    orpo = [folders[method] for method in ("orpo-off", "orpo-on", "orpo-mixed")]
    assert len({(folder / "triplets/epoch-1.jsonl").read_bytes() for folder in orpo}) == 1
    single = runs.records(folders["single-cot"], "triplets/epoch-1.jsonl", Triplet)
    diverse = runs.records(folders["diverse-cot"], "triplets/epoch-1.jsonl", Triplet)
    assert len(single) == 8 < len(diverse) and all(pair.rejected is None for pair in diverse)
    rows = methods.table(cells)
    assert [row["method"] for row in rows] == list(methods.METHODS) and all(0 <= row["mean"] <= 1 for row in rows)


def test_two_ends_of_a_run_are_compared_on_the_same_questions(whole):
    before, after = compare.last_answers(whole, 0), compare.last_answers(whole)
    *benchmarks, mean = compare.compare(before, after)
    assert len(benchmarks) == 2 and mean.benchmark == "mean" and mean.questions == 32
    assert mean.low <= mean.difference <= mean.high
    flips = compare.flips(before, after)
    assert len(flips) == mean.only_first + mean.only_second
    assert all(isinstance(answer, Answer) for pair in flips for answer in pair)
