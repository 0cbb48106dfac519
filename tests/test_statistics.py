"""Error bars equal scipy's; the paired bootstrap behaves as its textbook says."""

import numpy as np
import pytest
from scipy import stats

from labkit.statistics import holm, mcnemar, paired_bootstrap, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (480, 1000), (1, 1)])
def test_wilson_equals_scipy(k, n):
    interval = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_wilson_of_nothing_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 5), (3, 12), (40, 61), (900, 1400)])
def test_mcnemar_is_the_exact_binomial_test(b, c):
    expected = stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(expected, rel=1e-6)


def test_paired_bootstrap_agrees_with_the_normal_approximation():
    rng = np.random.default_rng(5)
    first = rng.random(1000) < 0.5
    second = np.where(rng.random(1000) < 0.8, first, rng.random(1000) < 0.7)
    difference, low, high = paired_bootstrap(first, second)
    change = second.astype(float) - first
    assert difference == pytest.approx(change.mean())
    half = 1.96 * change.std(ddof=1) / np.sqrt(1000)
    assert (low, high) == pytest.approx((difference - half, difference + half), abs=0.003)


def test_pairing_makes_the_interval_narrower_than_two_separate_ones():
    first = np.tile([1.0, 0.0], 250)
    second = first.copy()
    second[:20] = 1.0
    _, low, high = paired_bootstrap(first, second)
    assert high - low < 0.03  # unpaired at n = 500 it would be 0.12
    assert low > 0


def test_strata_weigh_benchmarks_equally():
    first, second = np.zeros(110), np.r_[np.ones(10), np.zeros(100)]
    difference, *_ = paired_bootstrap(first, second, strata=["small"] * 10 + ["large"] * 100)
    assert difference == pytest.approx(0.5)


def test_seeds_are_averaged_inside_a_question():
    first = np.zeros((2, 100))
    second = np.stack([np.ones(100), np.zeros(100)])
    assert paired_bootstrap(first, second) == pytest.approx((0.5, 0.5, 0.5))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
