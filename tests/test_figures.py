"""Figures: what they show is what the records say."""

import json

import numpy as np
import pytest

from labkit import figures, published
from labkit.method_rows import METHODS
from labkit.records import Score


def score(benchmark="gsm8k", epoch=0, correct=6, wrong=2, unparsed=1, truncated=1):
    total = correct + wrong + unparsed + truncated
    return Score(
        benchmark, "test", epoch, correct, wrong, unparsed, truncated, total, correct / total, 0.3, 0.8, correct, 9.0
    )


def test_bars_stack_to_a_hundred_percent_and_the_whisker_is_wilsons_interval():
    shown = {"a": [score(), score("arc", correct=0, wrong=10)], "b": [score(), score("arc")]}
    figure = figures.accuracy_bars(shown, {"gsm8k": 0.0, "arc": 0.25}, {("a", "arc"): 0.4})
    bars = {trace.name: trace for trace in figure.data}
    stacked = np.sum([trace.y for trace in figure.data if trace.type == "bar"], axis=0)
    assert stacked == pytest.approx([100] * 4)
    assert bars["95 % of correct"].error_y.array[0] == pytest.approx(20)
    assert list(bars["chance"].y) == [None, None, 25, 25]
    assert [value for value in bars["paper"].y if value] == [40]
    assert list(bars["✓ correct"].x[0]) == ["gsm8k", "gsm8k", "arc", "arc"]
    assert "arc, a: 0.0 % correct" in figure.layout.meta["alt"]


def test_every_outcome_has_a_sign_and_a_pattern_of_its_own():
    assert len(set(figures.SIGNS.values())) == 4 and len(set(figures.PATTERNS.values())) == 4


def test_curves_follow_epochs_whatever_the_order_of_the_scores():
    figure = figures.accuracy_curves({"run": [score(epoch=2, correct=7), score(epoch=0), score(epoch=1, correct=1)]})
    assert list(figure.data[0].x) == [0, 1, 2]
    assert figure.data[0].y[0] == pytest.approx(60)


def test_a_long_training_is_thinned_and_stays_small():
    steps = np.arange(1, 5001)
    metrics = {"step": steps, "loss": np.cos(steps / 100), "nll_loss": np.ones(5000), "log_odds_chosen": np.ones(5000)}
    figure = figures.training_curves(metrics, "run")
    assert len(figure.data[0].x) <= 1000
    assert len(figure.to_json()) < 60_000
    assert figure.layout.uirevision == "run"


def test_pass_at_k_and_solve_rates_count_problems():
    cases = [(4, 4), (4, 0), (4, 2), (2, 1)]
    curve = figures.pass_curve({"teacher": cases})
    at = dict(zip(curve.data[0].x, curve.data[0].y, strict=True))
    assert at[1] == pytest.approx(100 * (1 + 0 + 0.5 + 0.5) / 4)
    assert at[4] == pytest.approx(100 * 2 / 3)
    bars = figures.solve_rates({"teacher": [1.0, 0.0, 0.5, 0.5]})
    assert max(bars.data[0].y) == 50 and sum(bars.data[0].y[::2]) == pytest.approx(100)


def test_the_policy_chart_has_what_was_missing():
    row = {"epoch": 2, "initial": 3, "fresh": 4, "without_negative": 1, "near_copies": 5, "empty": 2}
    figure = figures.policy_bars([row])
    assert [trace.y[0] for trace in figure.data] == [3, 4, 1, 5, 2]


def test_figures_need_no_template_and_are_plain_json():
    figure = json.loads(figures.solve_rates({"student, initial": [0.2]}).to_json())
    assert figure["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"
    assert len(json.dumps(figure["layout"])) < 3000


def test_published_numbers_apply_only_to_the_papers_students_and_benchmarks():
    assert published.accuracy("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "mixed-policy ORPO", "gsm8k") == pytest.approx(
        0.4072
    )
    assert published.accuracy("models/internlm2_5-1_8b-chat", "zero-shot", "medqa_usmle_4opt") == pytest.approx(0.3582)
    assert published.accuracy("pocket:student-neox", "zero-shot", "gsm8k") is None
    assert published.accuracy("tinyllama", "zero-shot", "pocket_gsm8k") is None
    means = published.means("internlm")
    assert list(means) == list(METHODS) and means["orpo-mixed"] == pytest.approx(0.5584, abs=1e-4)
