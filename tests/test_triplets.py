"""Pairing: every chosen trace gets a negative of its own problem, by the coins of the mixed policy, repeatably."""

from collections import Counter

from labkit.records import Trace
from labkit.triplets import coins, make, tally


def _traces(problem, n, side="student", epoch=0):
    said = ["wrong", "x", "answer-line", None, True, "stop", 9, -0.5, 0.8, "kept"]
    return [Trace(problem, side, "m", epoch, draw, f"{side} {epoch} {draw}", *said) for draw in range(n)]


def _make(n_chosen=8, n_initial=8, n_fresh=8, phi=0.5, epoch=2, **options):
    chosen = {f"p{i}": _traces(f"p{i}", n_chosen, "teacher") for i in range(50)}
    initial = {problem: _traces(problem, n_initial) for problem in chosen}
    fresh = {problem: _traces(problem, n_fresh, epoch=1) for problem in chosen}
    return make(chosen, initial, fresh, epoch=epoch, phi=phi, seed=3, **options)


def test_each_chosen_trace_is_paired_with_a_negative_of_the_same_problem():
    pairs = _make()
    assert Counter(pair.problem for pair in pairs) == {f"p{i}": 8 for i in range(50)}
    assert all(pair.rejected and pair.rejected.startswith("student") for pair in pairs)


def test_no_negative_is_used_twice_while_the_pool_lasts():
    assert tally(_make())["repeated_negatives"] == 0
    assert tally(_make(n_initial=3, n_fresh=0))["repeated_negatives"] == 50 * 5


def test_phi_sets_the_share_of_fresh_negatives():
    assert tally(_make(phi=0))["fresh_share"] == 0
    assert tally(_make(phi=1))["fresh_share"] == 1
    assert 0.42 < tally(_make(phi=0.5))["fresh_share"] < 0.58  # 400 coins: 2.5 sd is 0.06


def test_the_first_epoch_has_only_the_initial_student():
    assert tally(_make(epoch=1, phi=1, n_fresh=0))["fresh"] == 0
    assert not any(coins(0, 1, "p", 100, 1.0))


def test_a_dry_pool_is_filled_from_the_other_one():
    counts = tally(_make(phi=1, n_fresh=3))
    assert counts["fresh"] == 50 * 3 and counts["without_negative"] == 0


def test_without_any_negative_the_pair_keeps_its_nll_term_or_is_dropped():
    kept = _make(n_initial=0, n_fresh=0)
    assert len(kept) == 400 and all(pair.rejected is None for pair in kept)
    assert _make(n_initial=0, n_fresh=0, unpaired="drop") == []


def test_the_same_seed_pairs_alike_and_each_epoch_anew():
    assert _make() == _make()
    assert [p.rejected_draw for p in _make(epoch=2)] != [p.rejected_draw for p in _make(epoch=3)]


def test_negatives_are_traceable_to_the_trace_that_made_them():
    for pair in _make():
        assert pair.rejected == f"student {pair.rejected_epoch} {pair.rejected_draw}"
