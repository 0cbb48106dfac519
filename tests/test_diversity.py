"""Near-copies and diversity, against rouge-score and worked examples."""

import random

import pytest

from labkit.diversity import NearCopies, answer_entropy, distinct_n, pass_at_k, rouge_l, rouge_matrix, self_bleu, words


def _texts(n, seed):
    rng = random.Random(seed)
    vocabulary = ["the", "Rope", "iron", "42", "3.5", "don't", "x-ray", "naïve", "so", "Answer:", "—", "\n", "2x"]
    return [" ".join(rng.choices(vocabulary, k=rng.randint(0, 40))) for _ in range(n)]


def test_rouge_l_equals_rouge_score():
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    for first, second in zip(_texts(200, 1), _texts(200, 2), strict=True):
        theirs = scorer.score(first, second)["rougeL"].fmeasure
        assert rouge_l(words(first), words(second)) == pytest.approx(theirs, abs=1e-9)


def test_a_near_copy_is_refused_and_a_different_trace_kept():
    copies = NearCopies(0.8)
    assert copies.admit("First add 3 and 4 to get 7. Answer: 7") == (True, 0.0)
    kept, rouge = copies.admit("First add 3 and 4 to get 7! So, Answer: 7")
    assert not kept and rouge > 0.8
    assert copies.admit("Counting on from 4: 5, 6, 7. Answer: 7")[0]
    assert len(copies.kept) == 2


def test_threshold_one_keeps_exact_copies():
    copies = NearCopies(1.0)
    assert copies.admit("the same")[0] and copies.admit("the same")[0]


def test_rouge_matrix_is_symmetric_with_ones_on_the_diagonal():
    matrix = rouge_matrix(_texts(5, 3))
    assert all(matrix[i][j] == matrix[j][i] for i in range(5) for j in range(5))
    assert [matrix[i][i] for i in range(5)] == [1.0] * 5


def test_distinct_n_counts_distinct_ngrams():
    assert distinct_n(["a b a b", "a b"], 1) == pytest.approx(2 / 6)
    assert distinct_n(["a b a b", "a b"], 2) == pytest.approx(2 / 4)
    assert distinct_n([""], 1) == 0.0


def test_self_bleu_is_one_for_copies_and_zero_without_common_words():
    assert self_bleu(["a b c d e", "a b c d e"]) == pytest.approx(1.0)
    assert self_bleu(["a b c d e", "f g h i j"]) == 0.0
    assert self_bleu(["alone"]) == 0.0


def test_answer_entropy_in_bits():
    assert answer_entropy(["7", "7", "7", "7"]) == 0.0
    assert answer_entropy(["7", "8", "7", "8"]) == pytest.approx(1.0)
    assert answer_entropy(["7", None]) == pytest.approx(1.0)


def test_pass_at_k_is_the_chance_that_a_random_subset_holds_a_correct_draw():
    assert pass_at_k(4, 1, 1) == pytest.approx(0.25)
    assert pass_at_k(4, 1, 4) == 1.0
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(5, 2, 2) == pytest.approx(1 - 3 / 10)
    with pytest.raises(ValueError, match="at least 5"):
        pass_at_k(4, 1, 5)
