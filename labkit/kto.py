"""What KTO's loss needs of its reference, the student before training, for one batch (arXiv 2402.01306, section 4).

    z = max(0, mean over the batch's responses y' of log p(y' | x) - log p(y' | x) of the reference),

with x another prompt than the one that y' answers: each response goes with the prompt of the pair before. It estimates
how far the student has moved from the reference, and has no gradient. Desirable and undesirable responses weigh 1 each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labkit.orpo import Example, token_logps


def prepared(
    student: nn.Module, reference: nn.Module, examples: list[Example], max_tokens: int
) -> tuple[Tensor, float]:
    """The reference's summed log-probabilities [pairs, 2] of chosen and rejected, in order, and z.

    Pairs without a rejected side do not count. Costs a forward pass of the reference over the batch, and one of both
    models over the mismatched one.
    """
    pairs = [
        (example.prompt, chosen, rejected)
        for example in examples
        for chosen, rejected in zip(example.chosen, example.rejected, strict=True)
        if rejected is not None
    ]
    if not pairs:
        return torch.zeros(0, 2), 0.0
    own = [Example(prompt, (chosen,), (rejected,)) for prompt, chosen, rejected in pairs]
    others = [pairs[-1][0], *(prompt for prompt, _, _ in pairs[:-1])]
    moved = [Example(prompt, e.chosen, e.rejected) for prompt, e in zip(others, own, strict=True)]
    drift = _sums(student, moved, max_tokens) - _sums(reference, moved, max_tokens)
    return _sums(reference, own, max_tokens), max(0.0, drift.mean().item())


def _sums(model: nn.Module, examples: list[Example], max_tokens: int) -> Tensor:
    found = token_logps(model, examples, max_tokens=max_tokens)
    return torch.stack([torch.stack([side.sum() for side in pair]) for example in found for pair in example])
