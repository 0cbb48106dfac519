"""Each setting beyond the paper does what it says in a whole run; a run with all of them resumes to the same bytes."""

import pytest
from forked import distilling, end, wait_for

from labkit import distill, runs
from labkit.config import configure, recipe
from labkit.records import LabError, Trace, Triplet

SETTINGS = {"benchmarks": "pocket_arc,pocket_gsm8k", "problems": 4, "test_problems": 2, "k": 3, "max_draws": 8} | {
    "epochs": 3, "checkpoint_steps": 2, "batch": 8,
}  # fmt: skip
SWITCHED = {"sft_epochs": 1, "phi": 1.0, "phi_schedule": "linear", "past_weight": 0.5, "negatives": "both"} | {
    "partner": "nearest", "contrast": "differing", "epochs": 4,
}  # fmt: skip


def _run(folder, **changes):
    distill.prepare(folder, recipe("pocket-quick", {**SETTINGS, **changes}))
    assert distill.run(folder) == "done"
    return folder


def _pairs(folder, epoch):
    return runs.records(folder, f"triplets/epoch-{epoch}.jsonl", Triplet)


def _bytes(folder):
    found = [path for part in ("traces", "triplets", "answers") for path in sorted(folder.glob(f"{part}/*.jsonl"))]
    return [path.read_bytes() for path in [*found, folder / "scores.jsonl", folder / "student/model.safetensors"]]


@pytest.fixture(scope="module")
def switched(tmp_path_factory):
    return _run(tmp_path_factory.mktemp("runs") / "switched", **SWITCHED)


def test_fine_tuning_comes_first_and_contrasts_nothing(switched):
    assert all(pair.rejected is None for pair in _pairs(switched, 1))
    assert any(pair.rejected for pair in _pairs(switched, 2))
    rows = list(runs.rows(switched / "metrics.jsonl"))
    first = [row for row in rows if row["epoch"] <= 1]
    assert first and not any("odds_pull" in row for row in first)
    later = [row for row in rows if row["epoch"] > 1]
    assert any(row["odds_factor/rejected"] > 1 and 0 < row["odds_pull"] < 1 for row in later if "odds_pull" in row)
    assert all(row["tokens"] > 0 for row in rows)


def test_negatives_are_of_the_teacher_the_initial_and_several_later_students(switched):
    negatives = [pair for epoch in (2, 3, 4) for pair in _pairs(switched, epoch) if pair.rejected]
    assert len({(pair.rejected_side, pair.rejected_epoch) for pair in negatives}) >= 3
    assert (switched / "traces/teacher-wrong.jsonl").exists() and (switched / "traces/student-0.jsonl").exists()
    said = {
        (trace.side, trace.epoch, trace.problem, trace.draw): trace.text
        for path in switched.glob("traces/*.jsonl")
        if path.stem != "teacher"
        for trace in runs.records(switched, f"traces/{path.name}", Trace)
    }
    for pair in negatives:
        assert said[pair.rejected_side, pair.rejected_epoch, pair.problem, pair.rejected_draw] == pair.rejected


def test_a_switched_run_killed_again_and_again_ends_with_the_same_bytes(switched):
    folder = switched.parent / "killed"
    distill.prepare(folder, recipe("pocket-quick", {**SETTINGS, **SWITCHED}))
    for epoch in (2, 3, 4):
        child = distilling(folder)
        wait_for(child, (folder / f"triplets/epoch-{epoch}.jsonl").exists, folder)
        child.kill()
        end(child)
    assert distill.run(folder) == "done"
    assert _bytes(folder) == _bytes(switched)


def test_one_trace_repeated_takes_as_many_steps_as_all_of_them(tmp_path):
    single = _run(tmp_path / "single", method="single-cot", repeat_single=True, epochs=1)
    diverse = _run(tmp_path / "diverse", method="diverse-cot", epochs=1)
    steps = [[row["step"] for row in runs.rows(folder / "metrics.jsonl")] for folder in (single, diverse)]
    assert steps[0] == steps[1]
    one = [pair.chosen for pair in _pairs(single, 1)]
    assert len(one) == len(_pairs(diverse, 1)) > len(set(one))


def test_fine_tuning_may_not_be_all_there_is_of_orpo():
    with pytest.raises(LabError, match="sft_epochs = 5 leaves none of 5 epochs"):
        configure({"benchmarks": "x", "sft_epochs": 5})
    assert configure({"benchmarks": "x", "sft_epochs": 2}).lam_at(2) == 0
    assert configure({"benchmarks": "x", "sft_epochs": 2}).lam_at(3) == 1
