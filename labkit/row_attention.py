"""Attention on packed rows: every branch against its prompt and itself, nothing else, in any transformers decoder.

The modelling code is not touched: `attend` is registered as an attention function of transformers and receives the
`Row` as a keyword argument of the model's forward. Branches of similar length share a call; the prompt's keys and
values are computed once and only copied beside each branch's own. Grouped queries, sliding windows, soft caps and sinks
are those of the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from labkit.packing import Row, Segment

NAME = "labkit_packed"
CALL_COST = 4e5  # one more attention call costs about as much as this many (query, key, channel) products


@dataclass(frozen=True)
class Group:
    """Segments that share one attention call: B segments, L their longest, S longest prefix + L."""

    queries_BL: Tensor
    keys_BS: Tensor
    distance_BLS: Tensor  # query position - key position; -1 where the key is hidden or padding


@dataclass(frozen=True)
class Plan:
    """A row's attention calls and the gathers around them, each done once for all calls."""

    groups: list[Group]
    queries: Tensor  # every group's queries, flattened, then concatenated
    keys: Tensor
    home: Tensor  # [tokens] where each token's result lies in the concatenated outputs


def _clusters(segments: list[Segment], width: int) -> list[list[Segment]]:
    """Segments of similar shape together, longest first: each joins if its padding costs less than its own call."""
    clusters: list[list[Segment]] = []
    area = prefix = 0  # of the cluster in hand: scores that are computed, longest prefix
    for segment in sorted(segments, key=lambda s: (s.length, s.prefix_length), reverse=True):
        own = segment.length * (segment.prefix_length + segment.length)
        if clusters:
            longest, together = clusters[-1][0].length, max(prefix, segment.prefix_length)
            grown = (len(clusters[-1]) + 1) * longest * (together + longest)
            if (grown - area - own) * width < CALL_COST:
                clusters[-1].append(segment)
                area, prefix = grown, together
                continue
        clusters.append([segment])
        area, prefix = own, segment.prefix_length
    return clusters


def _group(segments: list[Segment], device: torch.device) -> Group:
    """Index tensors of one attention call."""
    fields = [[s.start, s.length, s.prefix, s.prefix_length] for s in segments]
    start, length, prefix, before = torch.tensor(fields, device=device).T[:, :, None]
    longest, longest_prefix = max(s.length for s in segments), max(s.prefix_length for s in segments)
    own = torch.arange(longest, device=device)[None]
    shared = torch.arange(longest_prefix, device=device)[None]
    queries = torch.where(own < length, start + own, start)
    keys = torch.cat([torch.where(shared < before, prefix + shared, start), queries], 1)
    key_positions = torch.cat([shared.expand(len(segments), -1), before + own], 1)
    real = torch.cat([shared < before, own < length], 1)
    distance = (before + own)[:, :, None] - key_positions[:, None]
    hidden = (distance < 0) | ~real[:, None]
    return Group(queries, keys, distance.masked_fill(hidden, -1))


def _plan(row: Row, width: int) -> Plan:
    """The row's plan for a model with `width` query channels, made by the first layer and kept for the others."""
    if ("plan", width) not in row.cache:
        device = row.ids.device
        clusters = _clusters(row.segments, width)
        groups = [_group(cluster, device) for cluster in clusters]
        home = [0] * row.ids.numel()
        first = 0
        for cluster in clusters:
            for segment in cluster:
                home[segment.start : segment.start + segment.length] = range(first, first + segment.length)
                first += cluster[0].length  # the longest comes first
        indices = [(g.queries_BL.flatten(), g.keys_BS.flatten()) for g in groups]
        queries, keys = (torch.cat(x) for x in zip(*indices, strict=True))
        row.cache["plan", width] = Plan(groups, queries, keys, torch.tensor(home, device=device))
    return row.cache["plan", width]


def _mask(row: Row, group: Group, window: int | None, dtype: torch.dtype) -> Tensor:
    """What to add to the scores [B, 1, L, S]: 0 or -inf. Made once per row and window."""
    key = ("mask", id(group), window, dtype)
    if key not in row.cache:
        visible = group.distance_BLS >= 0
        if window:
            visible &= group.distance_BLS < window
        padding = torch.arange(visible.shape[1], device=visible.device)
        own = visible.shape[2] - visible.shape[1]
        visible[:, padding, own + padding] = True  # a padded query needs one key; its result is thrown away
        row.cache[key] = torch.zeros(visible.shape, device=visible.device, dtype=dtype)
        row.cache[key] = row.cache[key].masked_fill_(~visible, float("-inf"))[:, None]
    return row.cache[key]


def _bent_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    """Attention written out, for models that bend the scores (Gemma 2's soft cap, gpt-oss's sinks)."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores + mask
    if sinks is not None:
        scores = torch.cat([scores, sinks.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)], -1)
    return scores.softmax(-1)[..., : k.shape[2]] @ v


def _gathered(x: Tensor, rows: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    """x [1, heads, tokens, d] taken at `rows`: one [B, heads, length, d] for each shape [B, length]."""
    parts = x[0].transpose(0, 1).index_select(0, rows).split([shape.numel() for shape in shapes])
    return [part.unflatten(0, shape).transpose(1, 2) for part, shape in zip(parts, shapes, strict=True)]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    packed_row: Row | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers: query [1, heads, tokens, d] -> ([1, tokens, heads, d], None).

    Dropout is ignored on purpose: training runs without it.
    """
    if packed_row is None:
        raise TypeError("this model does not hand keyword arguments on to its attention")
    heads, d = query.shape[1], query.shape[3]
    plan = _plan(packed_row, heads * d)
    scale = d**-0.5 if scaling is None else scaling
    qs = _gathered(query, plan.queries, [g.queries_BL.shape for g in plan.groups])
    ks, vs = (_gathered(x, plan.keys, [g.keys_BS.shape for g in plan.groups]) for x in (key, value))
    outputs = []
    for group, q, k, v in zip(plan.groups, qs, ks, vs, strict=True):
        mask = _mask(packed_row, group, sliding_window, q.dtype)
        if softcap is None and s_aux is None:
            shared = k.shape[1] != heads
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=shared)
        else:
            out = _bent_attention(q, k, v, mask, scale, softcap, s_aux)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, plan.home)[None], None


AttentionInterface.register(NAME, attend)


@contextmanager
def packed_attention(config: Any) -> Iterator[None]:
    """Within the block the model of this config attends by `packed_row`; the backward pass belongs inside."""
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
