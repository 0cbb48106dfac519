"""The student's errors share the teacher's traces out: the same total, more where it errs, and each run repeats."""

import random

import pytest

from labkit import difficulty, distill, runs
from labkit.config import configure, recipe
from labkit.records import LabError, Trace, Triplet

TINY = {"benchmarks": "pocket_arc,pocket_gsm8k", "problems": 4, "test_problems": 4, "epochs": 1, "k": 3, "max_draws": 9}


def _run(folder, **changes):
    distill.prepare(folder, recipe("pocket-quick", {**TINY, **changes}))
    assert distill.run(folder) == "done"
    traces = runs.records(folder, "traces/student-0.jsonl", Trace)
    return difficulty.error_rates(traces), runs.records(folder, "triplets/epoch-1.jsonl", Triplet)


def test_shares_keep_the_total_the_bounds_and_the_order_of_the_weights():
    rng = random.Random(0)
    for _ in range(50):
        weights = {str(i): rng.random() + 0.01 for i in range(rng.randint(1, 30))}
        total, most = len(weights) * rng.randint(1, 8), 12
        shares = difficulty.apportion(weights, total, most)
        assert sum(shares.values()) == total and all(1 <= n <= most for n in shares.values())
        ordered = sorted(weights, key=weights.get)
        assert [shares[i] for i in ordered] == sorted(shares.values())
    assert difficulty.apportion({"a": 3.0, "b": 1.0}, 8, 99) == {"a": 6, "b": 2}
    assert difficulty.apportion({"a": 1.0}, 50, 12) == {"a": 12}


def test_k_by_errors_gives_hard_questions_more_traces_of_the_same_total(tmp_path):
    rates, pairs = _run(tmp_path / "run", difficulty="k")
    wanted = difficulty.apportion(rates, 8 * 3, 6)
    assert len(set(wanted.values())) > 1, "some questions are harder than others"
    made = [pair.problem for pair in pairs]
    assert all(made.count(problem) <= n for problem, n in wanted.items())
    assert len(made) >= 0.8 * 24  # a few questions may be short of different traces


def test_fine_tuning_shows_more_often_what_the_student_gets_wrong(tmp_path):
    rates, pairs = _run(tmp_path / "run", method="diverse-cot", difficulty="weights")
    _, again = _run(tmp_path / "again", method="diverse-cot", difficulty="weights")
    assert pairs == again
    shown = [pair.problem for pair in pairs]
    kept = [trace for trace in runs.records(tmp_path / "run", "traces/teacher.jsonl", Trace) if trace.use == "kept"]
    assert len(shown) == len(kept), "as many steps as without weights"
    hardest, easiest = max(rates, key=rates.get), min(rates, key=rates.get)
    assert shown.count(hardest) > shown.count(easiest) >= 1
    assert all(pair.rejected is None for pair in pairs)


def test_which_traces_are_shown_changes_with_the_epoch():
    drawn = [
        Trace("a", "teacher", "m", 0, i, f"t{i}", "correct", "x", "r", None, True, "stop", 1, None, 0.8, "kept")
        for i in range(4)
    ]
    pools = {"a": drawn, "b": drawn, "c": []}
    found = [difficulty.shown(pools, {"a": 0.9, "b": 0.1}, 0, epoch) for epoch in (1, 2)]
    assert [{k: len(v) for k, v in one.items()} for one in found] == [{"a": 7, "b": 1}] * 2
    assert found[0] != found[1]


def test_weights_are_for_fine_tuning():
    with pytest.raises(LabError, match="use it with method=diverse-cot"):
        configure({**recipe("pocket").model_dump(), "difficulty": "weights"})
