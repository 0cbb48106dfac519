"""One step of a batch as the model sees it: attention over blocks of keys and values, where they lie.

Every block is multiplied once with all the queries that look at it; each query's partial results are then weighted
by the softmax of their logarithmic sums (the identity behind FlashAttention, arXiv 2205.14135, section 3.1).

`attend` is registered with transformers under the name `NAME`, and the step travels as an argument of `model(...)`:
no modelling code is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from labkit.kv import BLOCK, NEVER, Ids, Limits, Pool, Prefill, capped, write

NAME = "labkit_blocks"


class Units(NamedTuple):
    """Index tables of one step for one number of key heads; a unit is (block, head, draw)."""

    near: int  # units of own blocks; those of prompt blocks follow
    total: int
    queries: Tensor  # per unit: the (draw, head) whose queries it takes
    bags: Tensor  # (draws * query heads, blocks): the (unit, query) rows that make one query's result


@dataclass
class Decode:
    """One token of every running draw. All arrays are numpy int64, -1 where there is nothing."""

    own: Pool
    prompts: Pool
    table: Ids  # (draws, blocks): own blocks in order
    ages: Ids  # (draws): own tokens before this one
    prompt: Ids  # (draws): index of the draw's prompt
    prompt_table: Ids  # (prompts, blocks)
    prompt_lengths: Ids
    device: torch.device
    units_of: dict[tuple[int, int], Units] = field(default_factory=dict)
    bias_of: dict[int | None, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @cached_property
    def places(self) -> Tensor:
        return self.on(self.table[np.arange(len(self.ages)), self.ages // BLOCK] * BLOCK + self.ages % BLOCK)

    @cached_property
    def owner(self) -> tuple[Ids, Ids]:
        """Per own block: its draw, and its position among that draw's blocks."""
        return _inverse(self.table, self.own.used)

    @cached_property
    def prompt_owner(self) -> tuple[Ids, Ids]:
        return _inverse(self.prompt_table, self.prompts.used)

    @cached_property
    def lane(self) -> Ids:
        """Per draw: its rank among the draws of its prompt."""
        order = np.argsort(self.prompt, kind="stable")
        grouped = self.prompt[order]
        lane = np.empty_like(order)
        lane[order] = np.arange(len(order)) - np.searchsorted(grouped, grouped)
        return lane

    @cached_property
    def lanes(self) -> Ids:
        """(prompts, widest): the draws of each prompt, -1 where it has fewer than the widest."""
        lanes = np.full((len(self.prompt_table), self.lane.max() + 1), -1)
        lanes[self.prompt, self.lane] = np.arange(len(self.lane))
        return lanes

    def on(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def units(self, heads: int, group: int) -> Units:
        """The index tables for `heads` key heads with `group` query heads each."""
        if (heads, group) not in self.units_of:
            self.units_of[heads, group] = self._units(heads, group)
        return self.units_of[heads, group]

    def _units(self, heads: int, group: int) -> Units:
        head, wide = np.arange(heads), self.lanes.shape[1]
        near = self.own.used * heads
        total = near + self.prompts.used * heads * wide
        reading = np.maximum(self.lanes, 0)[self.prompt_owner[0]]  # (prompt blocks, lanes)
        queries = np.concatenate([
            (self.owner[0][:, None] * heads + head).ravel(),
            (reading[:, None] * heads + head[:, None]).ravel(),
        ])  # fmt: skip
        table, far = self.table[:, None], self.prompt_table[self.prompt][:, None]
        own_units = np.where(table < 0, total, table * heads + head[:, None])
        far_units = near + (far * heads + head[:, None]) * wide + self.lane[:, None, None]
        bags = np.concatenate([own_units, np.where(far < 0, total, far_units)], 2)  # (draws, heads, blocks)
        bags = bags[:, :, None] * group + np.arange(group)[:, None]
        return Units(near, total, self.on(queries), self.on(bags.reshape(-1, bags.shape[-1])))

    def bias(self, window: int | None) -> tuple[Tensor, Tensor]:
        """0 or never, for own blocks (blocks, BLOCK) and prompt blocks (blocks, lanes or 1, BLOCK)."""
        if window not in self.bias_of:
            self.bias_of[window] = self._bias(window)
        return self.bias_of[window]

    def _bias(self, window: int | None) -> tuple[Tensor, Tensor]:
        draw, order = self.owner
        near = self.ages[draw][:, None] - (order[:, None] * BLOCK + np.arange(BLOCK))  # tokens back
        prompt, order = self.prompt_owner
        left = self.prompt_lengths[prompt][:, None] - (order[:, None] * BLOCK + np.arange(BLOCK))
        far_seen = (left > 0)[:, None]
        near_seen = near >= 0
        if window is not None:
            near_seen &= near < window
            ages = np.where(self.lanes < 0, 0, self.ages[self.lanes])[prompt]
            far_seen = far_seen & (left[:, None] + ages[:, :, None] < window)
        return tuple(self.on(np.where(seen, 0, NEVER).astype(np.float32)) for seen in (near_seen, far_seen))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float, limits: Limits) -> Tensor:
        """Store the new keys and values (draws, heads, 1, width) and return (draws, 1, query heads, width)."""
        draws, heads, _, width = k.shape
        group = q.shape[1] // heads
        units = self.units(heads, group)
        pair = self.own.layer(layer, k, v)
        write(pair, self.places, k, v)
        near = tuple(kept[: self.own.used].flatten(0, 1) for kept in pair)
        far = tuple(kept[: self.prompts.used].flatten(0, 1) for kept in self.prompts.layers[layer])
        queries = (q * scaling).reshape(draws * heads, group * width).index_select(0, units.queries)
        scores = q.new_empty(units.total, group, BLOCK)
        out = q.new_empty(units.total + 1, group, v.shape[3])
        both = ((near, slice(0, units.near)), (far, slice(units.near, units.total)))
        for (keys, _), part in both:
            torch.bmm(queries[part].view(len(keys), -1, width), keys.mT, out=scores[part].view(len(keys), -1, BLOCK))
        weights, totals = self._weigh(scores.float(), units, heads, limits)
        weights = weights.to(v.dtype)
        for (_, values), part in both:
            torch.bmm(
                weights[part].view(len(values), -1, BLOCK), values, out=out[part].view(len(values), -1, v.shape[3])
            )
        out[-1] = 0
        joined = _join(out.flatten(0, 1).float(), totals.flatten(), units.bags)
        return joined.to(q.dtype).view(draws, 1, q.shape[1], -1)

    def _weigh(self, scores: Tensor, units: Units, heads: int, limits: Limits) -> tuple[Tensor, Tensor]:
        """Weights inside each block, summing to 1, and the logarithm of what they summed to before, one more unit."""
        if limits.softcap is not None:
            scores = capped(scores, limits.softcap)
        near_bias, far_bias = self.bias(limits.window)
        group = scores.shape[1]
        scores[: units.near].view(-1, heads, group, BLOCK).add_(near_bias[:, None, None])
        scores[units.near :].view(len(far_bias), heads, -1, group, BLOCK).add_(far_bias[:, None, :, None])
        weights = scores.softmax(-1)
        totals = scores.amax(-1) - weights.amax(-1).log()  # the softmax kernel is several times faster than exp
        return weights, nn.functional.pad(totals, (0, 0, 0, 1), value=NEVER)


def _join(out: Tensor, totals: Tensor, bags: Tensor) -> Tensor:
    """Per bag: the rows of `out` that it lists, weighted by the softmax of their `totals`."""
    scale = totals.index_select(0, bags.flatten()).view(bags.shape).softmax(-1)
    return nn.functional.embedding_bag(bags, out, mode="sum", per_sample_weights=scale)


def _inverse(table: Ids, used: int) -> tuple[Ids, Ids]:
    rows, columns = np.nonzero(table >= 0)
    blocks = table[rows, columns]
    owner, order = np.zeros(used, np.int64), np.zeros(used, np.int64)
    owner[blocks], order[blocks] = rows, columns
    return owner, order


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    labkit_step: Prefill | Decode | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in place of its own attention; `labkit_step` travels as an argument of `model(...)`."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    limits = Limits(sliding_window, softcap)
    return labkit_step.attend(module.layer_idx, query, key, value, scaling, limits), None


AttentionInterface.register(NAME, attend)


def block_table(blocks: Sequence[Ids]) -> Ids:
    """One row for each of `blocks`, -1 after its end."""
    lengths = np.array([len(mine) for mine in blocks])
    table = np.full((len(blocks), lengths.max()), -1)
    table[np.arange(lengths.max()) < lengths[:, None]] = np.concatenate(blocks)
    return table


def prefill(model: PreTrainedModel, pool: Pool, prompts: list[Sequence[int]], blocks: list[Ids]) -> Tensor:
    """Read prompts, sorted by length, as one packed row into their blocks of `pool`; logits (prompts, vocabulary)."""
    lengths = [len(ids) for ids in prompts]
    places = np.concatenate([np.arange(n) for n in lengths])
    owned = np.concatenate([np.repeat(mine, BLOCK)[:n] for mine, n in zip(blocks, lengths, strict=True)])
    tokens = np.concatenate([np.asarray(ids, np.int64) for ids in prompts])
    arrays = (tokens, places, owned * BLOCK + places % BLOCK, np.cumsum(lengths) - 1)
    ids, positions, at, last = (torch.from_numpy(array).to(model.device) for array in arrays)
    return _forward(model, ids[None], positions[None], Prefill(pool, lengths, at), last)


def advance(model: PreTrainedModel, tokens: np.ndarray, step: Decode) -> Tensor:
    """Read one token per running draw; logits (draws, vocabulary) for the next."""
    positions = step.on(step.prompt_lengths[step.prompt] + step.ages)
    last = torch.zeros(1, dtype=torch.int64, device=model.device)
    return _forward(model, step.on(tokens)[:, None], positions[:, None], step, last)


def _forward(model: PreTrainedModel, ids: Tensor, positions: Tensor, step: Prefill | Decode, keep: Tensor) -> Tensor:
    """Logits (rows, vocabulary) at the `keep` positions of each row of `ids`."""
    out = model(
        input_ids=ids,
        position_ids=positions,
        attention_mask=torch.ones_like(ids),  # without it some models warn about end tokens in the prompt
        use_cache=False,
        logits_to_keep=keep,
        labkit_step=step,
    )
    return out.logits.flatten(0, 1)
