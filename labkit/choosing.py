"""What is asked of a model, and how its next tokens are chosen: greedy, or by temperature and top-p.

The random numbers of a draw come from its address alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

_BIN = 256  # tokens of the vocabulary summed together: the search runs over sums first, then inside one
_CHUNK = 1 << 18  # logits worked on at a time, so that the passes over them stay in the cache


@dataclass(frozen=True)
class Settings:
    """How tokens are chosen: temperature 0 is greedy; top_p keeps the likeliest tokens that sum up to it."""

    temperature: float
    top_p: float = 1.0
    max_new_tokens: int = 512


class Job(NamedTuple):
    """One prompt, and the address of each draw wanted from it."""

    ids: Sequence[int]
    seeds: tuple[str, ...]


class Said(NamedTuple):
    """One draw: its tokens (the end token included, if it came), and their mean log-probability in nats."""

    tokens: list[int]
    stopped: bool
    logprob: float


def uniforms(address: str, n: int) -> np.ndarray:
    """`n` uniform random numbers in [0, 1) that depend on the address alone (Philox keyed by its BLAKE2b hash)."""
    key = int.from_bytes(hashlib.blake2b(address.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key)).random(n)


def choose(logits: Tensor, chances: np.ndarray, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """One token per row of `logits` (rows, vocabulary), and its log-probability in nats at temperature 1.

    `chances` (rows,) are uniform in [0, 1); greedy choice does not look at them.
    """
    size = max(1, _CHUNK // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    uniform = torch.from_numpy(chances).to(logits.device)
    parts = [_choose(part, u, settings) for part, u in zip(logits.split(size), uniform.split(size), strict=True)]
    tokens, logprobs = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    return tokens, logprobs.astype(np.float64)


def _choose(logits: Tensor, uniform: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    logprobs = logits.float().log_softmax(-1)
    greedy = settings.temperature == 0
    tokens = logprobs.argmax(-1) if greedy else _draw(_weights(logprobs, settings), uniform)
    return tokens, logprobs.gather(1, tokens[:, None])[:, 0]


def _weights(logprobs: Tensor, settings: Settings) -> Tensor:
    """Probabilities at the temperature, padded with zeros to whole bins: (rows, bins, _BIN); unnormalised by top-p."""
    weights = logprobs if settings.temperature == 1 else (logprobs / settings.temperature)
    weights = weights.softmax(-1)
    if settings.top_p < 1:
        weights = weights.masked_fill(weights < _least(weights, settings.top_p), 0)
    return nn.functional.pad(weights, (0, -weights.shape[1] % _BIN)).view(len(weights), -1, _BIN)


def _least(weights: Tensor, top_p: float) -> Tensor:
    """(rows, 1): the smallest weight in the smallest set of tokens that holds `top_p` of the sum; ties stay in."""
    wanted = weights.sum(-1, keepdim=True) * top_p
    size = weights.shape[1]
    n = min(64, size)
    while True:
        best = weights.topk(n, -1).values
        sums = best.cumsum(-1)
        if n == size or (sums[:, -1:] >= wanted).all():
            return best.gather(1, (sums < wanted).sum(-1, keepdim=True).clamp_(max=n - 1))
        n = min(n * 8, size)


def _draw(weights: Tensor, uniform: Tensor) -> Tensor:
    """Inverse of the cumulative sum at `uniform`, first over bins, then inside the bin found."""
    bins = weights.sum(-1).double().cumsum(-1)
    target = uniform[:, None] * bins[:, -1:] * (1 - 1e-12)
    found = _first_above(bins, target)
    inside = weights.gather(1, found[:, :, None].expand(-1, -1, _BIN))[:, 0].double().cumsum(-1)
    rest = target - torch.where(found > 0, bins.gather(1, (found - 1).clamp_(min=0)), 0)
    # the two sums of a bin may differ in rounding: staying below the inner one keeps the choice inside the bin
    token = _first_above(inside, torch.minimum(rest, inside[:, -1:] * (1 - 1e-12)))
    return (found * _BIN + token)[:, 0]


def _first_above(sums: Tensor, target: Tensor) -> Tensor:
    """(rows, 1): index of the first element above `target`; its own weight is then positive."""
    return (sums <= target).sum(-1, keepdim=True).clamp_(max=sums.shape[1] - 1)
