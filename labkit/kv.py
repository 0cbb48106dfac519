"""Keys and values of a running batch, kept in blocks; and the reading of whole prompts into them.

A prompt is stored once and read by all its draws; what a draw has written itself is its own. Both live in blocks of
32 tokens, so a short sequence beside a long one costs nothing, and a finished one gives its blocks back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

BLOCK = 32  # tokens; a smaller block wastes less of itself, a larger one is read faster
NEVER = -1e30  # a masked score: finite, so that a block that is masked as a whole gives zero and not nan

Ids = np.ndarray  # int64


@dataclass
class Pool:
    """Blocks of keys and values, the used ones first and without gaps, per layer: (blocks, heads, BLOCK, width)."""

    used: int = 0
    room: int = 0
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def take(self, n: int) -> Ids:
        """The numbers of `n` more blocks."""
        self.used += n
        if self.used > self.room:
            self.room = max(self.used, self.room + self.room // 4)
        return np.arange(self.used - n, self.used)

    def free(self, blocks: Ids) -> Ids:
        """Give blocks back; the last ones move into the gaps. Returns each old block's new number."""
        keep = self.used - len(blocks)
        gaps = blocks[blocks < keep]
        moved = np.setdiff1d(np.arange(keep, self.used), blocks)
        for pair in self.layers.values():
            for kept in pair:
                kept[gaps] = kept[moved]
        numbers = np.arange(self.used)
        numbers[moved] = gaps
        self.used = keep
        return numbers

    def layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's two tensors, made or grown to hold all used blocks; `key`, `value` give heads, width, type."""
        pair = self.layers.get(index)
        if pair is None or len(pair[0]) < self.used:
            pair = self.layers[index] = tuple(
                self._grown(like, pair and pair[i]) for i, like in enumerate((key, value))
            )
        return pair

    def _grown(self, like: Tensor, old: Tensor | None) -> Tensor:
        new = like.new_zeros(self.room, like.shape[1], BLOCK, like.shape[3])
        if old is not None:
            new[: len(old)] = old
        return new


def write(pair: tuple[Tensor, Tensor], places: Tensor, key: Tensor, value: Tensor) -> None:
    """Store (rows, heads, tokens, width) at `places`: block * BLOCK + offset of each token, in row-major order."""
    heads = torch.arange(key.shape[1], device=key.device)
    at = ((places // BLOCK * len(heads))[:, None] + heads) * BLOCK + (places % BLOCK)[:, None]
    for kept, new in zip(pair, (key, value), strict=True):
        kept.view(-1, new.shape[3]).index_copy_(0, at.flatten(), new.transpose(1, 2).reshape(-1, new.shape[3]))


class Limits(NamedTuple):
    """What some models add to attention: a window of the last tokens (Gemma 3), a cap on the scores (Gemma 2)."""

    window: int | None
    softcap: float | None


@dataclass
class Prefill:
    """One packed row of whole prompts, equal lengths side by side: (1, heads, tokens, width)."""

    pool: Pool
    lengths: list[int]
    places: Tensor  # block * BLOCK + offset of each token

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float, limits: Limits) -> Tensor:
        write(self.pool.layer(layer, k, v), self.places, k, v)
        parts, start = [], 0
        for length in sorted(set(self.lengths), key=self.lengths.index):
            count = self.lengths.count(length)
            end = start + count * length
            cut = (t[0, :, start:end].unflatten(1, (count, length)).transpose(0, 1) for t in (q, k, v))
            parts.append(_causal(*cut, scaling, limits).transpose(1, 2).flatten(0, 1))
            start = end
        return torch.cat(parts)[None]


def _causal(q: Tensor, k: Tensor, v: Tensor, scaling: float, limits: Limits) -> Tensor:
    """Causal attention of whole sequences, (rows, heads, tokens, width) each, fewer heads in `k` and `v`."""
    length = q.shape[2]
    window = limits.window if limits.window and limits.window < length else None
    if window is None and limits.softcap is None:
        return nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
    away = torch.arange(length, device=q.device)[:, None] - torch.arange(length, device=q.device)
    seen = (away >= 0) & (away < (window or length))
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = capped((q * scaling) @ k.transpose(2, 3), limits.softcap)
    return scores.masked_fill(~seen, NEVER).float().softmax(-1).to(v.dtype) @ v


def capped(scores: Tensor, softcap: float | None) -> Tensor:
    """Scores bent into (-softcap, softcap) by a tanh, as Gemma 2 does; as they are for None."""
    return scores if softcap is None else scores.div(softcap).tanh().mul(softcap)
