"""Pairing: every chosen trace gets a negative of its own problem, by the coins of the mixed policy, repeatably."""

from collections import Counter
from dataclasses import replace

import pytest

from labkit.diversity import rouge_l, words
from labkit.records import Trace
from labkit.triplets import coins, make, phi_at, sources, tally


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


def test_phi_comes_at_once_or_rises_to_its_value_in_the_last_epoch():
    assert [phi_at(0.5, "constant", epoch, 5) for epoch in (1, 3, 5)] == [0.5] * 3
    assert [phi_at(0.5, "linear", epoch, 5) for epoch in range(1, 6)] == [0, 0.125, 0.25, 0.375, 0.5]
    cosine = [phi_at(0.5, "cosine", epoch, 5) for epoch in range(1, 6)]
    assert cosine == sorted(cosine) and (cosine[0], cosine[-1]) == (0, 0.5) and cosine[2] < 0.26
    assert phi_at(0.5, "linear", 1, 1) == 0


def test_older_students_give_negatives_by_their_age():
    coin = [True] * 3000
    newest = sources(coin, 0, 4, "p", 0.0)
    assert set(newest) == {3}
    counts = Counter(sources(coin, 0, 4, "p", 0.5))  # weights 1/4, 1/2, 1 of students 1, 2, 3
    assert counts[3] / counts[2] == pytest.approx(2, rel=0.15) and counts[2] / counts[1] == pytest.approx(2, rel=0.2)
    assert sources([False, False], 0, 4, "p", 0.5) == [0, 0]


def test_negatives_of_all_past_students_are_dealt_and_one_that_ran_dry_is_replaced_by_the_newest():
    chosen = {"p": _traces("p", 6, "teacher")}
    fresh = {"p": [trace for epoch in (1, 2, 3) for trace in _traces("p", 2, epoch=epoch)]}
    pairs = make(chosen, {"p": _traces("p", 6)}, fresh, epoch=4, phi=1, seed=0, past_weight=1.0)
    assert Counter(pair.rejected_epoch for pair in pairs) == {1: 2, 2: 2, 3: 2}
    again = make(chosen, {"p": _traces("p", 6)}, fresh, epoch=4, phi=1, seed=0)
    assert [pair.rejected_epoch for pair in again] == [3, 3, 2, 2, 1, 1]


def test_the_nearest_negative_meets_each_trace():
    texts = ["the nail is made of iron", "the sock is made of wool", "only one of these rusts"]
    said = [replace(trace, text=text) for trace, text in zip(_traces("p", 3, "teacher"), texts, strict=True)]
    wrong = [replace(trace, text=f"{text} so no") for trace, text in zip(_traces("p", 3), reversed(texts), strict=True)]
    pairs = make({"p": said}, {"p": wrong}, {}, epoch=1, phi=0, seed=0, partner="nearest")
    assert [pair.rejected for pair in pairs] == [f"{text} so no" for text in texts]
    assert all(
        rouge_l(words(pair.chosen), words(pair.rejected))
        == max(rouge_l(words(pair.chosen), words(w.text)) for w in wrong)
        for pair in pairs
    )


def test_the_share_of_rejected_words_that_the_chosen_trace_has_too():
    said = [replace(trace, text="one two two three") for trace in _traces("p", 1, "teacher")]
    wrong = [replace(trace, text="two two two four") for trace in _traces("p", 1)]
    pairs = make({"p": said}, {"p": wrong}, {}, epoch=1, phi=0, seed=0)
    assert tally(pairs)["shared_words"] == 0.5
