"""The odds ratio's parts as logged are those of its gradient; contrast can be kept to the tokens that differ."""

import pytest
import torch
import torch.nn.functional as F
from one_at_a_time import alone, gradients, make_examples, make_model

from labkit.odds import differing, log_odds_ratio, odds_factor, orpo_loss
from labkit.orpo import Example, train_step


def test_the_factor_is_one_over_one_minus_p():
    p = torch.tensor([0.5, 0.84, 0.01])
    torch.testing.assert_close(odds_factor(p.log()), 1 / (1 - p))


def test_the_logged_parts_multiply_to_the_gradient_of_the_odds_ratio():
    chosen, rejected = torch.tensor([-0.17], requires_grad=True), torch.tensor([-0.9], requires_grad=True)
    loss, metrics = orpo_loss(chosen, rejected, torch.tensor(0.0), 0.3)
    loss.backward()
    assert chosen.grad.item() == pytest.approx(-0.3 * metrics["odds_pull"] * metrics["odds_factor/chosen"], rel=1e-5)
    assert rejected.grad.item() == pytest.approx(0.3 * metrics["odds_pull"] * metrics["odds_factor/rejected"], rel=1e-5)


def test_only_tokens_outside_the_common_subsequence_count():
    first, second = differing((1, 2, 3, 4, 9), (1, 5, 3, 9))
    assert first == [0, 1, 0, 1, 0] and second == [0, 1, 0, 0]


def test_a_side_without_tokens_of_its_own_counts_in_full():
    assert differing((1, 2), (1, 7, 2)) == ([1, 1], [0, 1, 0])
    assert differing((4,), (4,)) == ([1], [1])


@pytest.mark.parametrize("packed", [True, False])
def test_contrast_of_differing_tokens_is_the_loss_written_out(packed):
    model = make_model("llama, tied")
    first, *_ = make_examples()
    pairs = [
        Example(first.prompt, ((8, 9, 10, 2), (11, 2)), ((8, 20, 2), None)),
        Example((5, 6, 7), ((30, 31, 2),), ((40, 31, 41, 2),)),
    ]
    ratios, nll, count = [], 0.0, 0
    for example in pairs:
        for chosen, rejected in zip(example.chosen, example.rejected, strict=True):
            good = alone(model, example.prompt, chosen)[len(example.prompt) - 1 :]
            nll, count = nll - good.sum(), count + len(good)
            if rejected is not None:
                bad = alone(model, example.prompt, rejected)[len(example.prompt) - 1 :]
                kept = [torch.tensor(mask) > 0 for mask in differing(chosen, rejected)]
                ratios.append(F.logsigmoid(log_odds_ratio(good[kept[0]].mean(), bad[kept[1]].mean())))
    expected = nll / count - 0.5 * torch.stack(ratios).mean()
    expected.backward()
    wanted = gradients(model)
    model.zero_grad()
    metrics = train_step(model, pairs, lam=0.5, contrast="differing", max_tokens=16, packed=packed)
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-5)
    whole = torch.stack([g.norm() for g in wanted.values()]).norm()
    assert all((g - wanted[name]).norm() <= 1e-5 * whole for name, g in gradients(model).items())
    assert metrics["loss"] != pytest.approx(train_step(model, pairs, lam=0.5)["loss"], rel=1e-4)
