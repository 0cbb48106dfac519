"""Figures of a study show the numbers they are given, and the numbers in them are the lab's own."""

import json

import numpy as np
import pytest
import torch

from labkit import study_figures
from labkit.method_figures import method_dots
from labkit.orpo import orpo_loss


def test_the_sliders_show_the_loss_that_training_computes():
    figure = study_figures.odds_sliders(chosen=(-1.0, -0.3), lams=(0.5, 2.0))
    assert len(figure.layout.sliders[0].steps) == 4 and len(figure.data) == 12
    shown = [i for i, trace in enumerate(figure.data) if trace.visible]
    case = shown[0] // 3
    chosen, lam = [(c, lam) for lam in (0.5, 2.0) for c in (-1.0, -0.3)][case]
    total = figure.data[shown[2]]
    for x, y in list(zip(total.x, total.y, strict=True))[::7]:
        loss, _ = orpo_loss(torch.tensor([chosen]), torch.tensor([x]), torch.tensor(-chosen), lam)
        assert y == pytest.approx(loss.item(), abs=2e-2, rel=1e-2)  # drawn with three decimals
    assert sum(figure.layout.sliders[0].steps[0].args[0]["visible"]) == 3


def test_a_forest_fills_only_what_excludes_zero_and_draws_points():
    figure = study_figures.forest({"yes": (0.05, 0.01, 0.09), "no": (0.02, -0.01, 0.05)})
    assert [trace.marker.symbol for trace in figure.data] == ["diamond", "diamond-open"]
    assert figure.data[0].x[0] == pytest.approx(5) and figure.data[0].error_x.arrayminus[0] == pytest.approx(4)
    assert "yes +5.0 (+1.0 to +9.0)" in figure.layout.meta["alt"]


def test_a_heatmap_stars_the_pairs_above_the_threshold_but_not_the_diagonal():
    figure = study_figures.heatmap([[1.0, 0.9], [0.9, 1.0]], ["a", "b"], "ROUGE-L", 0.8)
    assert [list(row) for row in figure.data[0].text] == [["1.00", "0.90*"], ["0.90*", "1.00"]]
    assert "1 of 1 pairs" in figure.layout.meta["alt"]


def test_distributions_are_shares_and_keep_what_lies_below_the_floor():
    figure = study_figures.distributions({"a": [-5.0, -0.5, -0.4, 0.0]}, "x", floor=-1.0, bins=4)
    assert sum(figure.data[0].y[::2]) == pytest.approx(100)
    assert figure.data[0].y[0] == pytest.approx(25) and min(figure.data[0].x) == -1


def test_dots_carry_every_seed_their_mean_and_what_was_found_elsewhere():
    found = {"sft": [{"arc": 0.4, "mean": 0.5}, {"arc": 0.4, "mean": 0.6}]}
    figure = method_dots(found, reference={"sft": {"mean": 0.7}})
    seeds, mean, elsewhere = figure.data[:3]  # the panel of the mean comes first
    assert list(seeds.x) == [50, 60] and mean.x[0] == pytest.approx(55) and seeds.y[0] == "sft"
    assert elsewhere.x[0] == pytest.approx(70) and elsewhere.name == "paper" and len(figure.data) == 5
    assert "sft 55.0 % (2 seeds)" in figure.layout.meta["alt"]


def test_lines_carry_bands():
    lines = study_figures.lines({"a": ((1, 2), (3.0, 4.0))}, "x", "y", band={"a": ((2.0, 3.5), (5.0, 4.5))})
    assert list(lines.data[0].error_y.array) == [2, 0.5] and list(lines.data[0].error_y.arrayminus) == [1, 0.5]


def test_counts_and_outcomes_stack():
    uses = study_figures.uses({"teacher": {"kept": 3, "near-copy": 2}})
    assert sum(trace.x[0] for trace in uses.data) == 5
    bars = study_figures.outcome_bars({"a": {"correct": 0.5, "wrong": 0.25, "unparsed": 0.25}})
    assert sum(trace.y[0] for trace in bars.data) == 100


def test_every_figure_says_what_it_shows_in_words_and_is_plain_json():
    tokens = study_figures.token_bars(["so", " it"], [-0.1, -2.0], "chosen")
    assert "lowest -2.00 at ' it'" in tokens.layout.meta["alt"]
    assert json.loads(tokens.to_json())["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"
    assert np.isfinite(tokens.data[0].y).all()
