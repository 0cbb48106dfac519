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
from itertools import accumulate
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
    """Segments that share one attention call. B segments, L their longest, S longest prefix + L."""

    queries_BL: Tensor
    keys_BS: Tensor
    distance_BLS: Tensor  # query position - key position; -1 where the key is hidden or padding


def _clusters(segments: list[Segment], width: int) -> list[list[Segment]]:
    """Segments of similar shape together, as long as the padding costs less than the call it saves."""
    clusters: list[list[Segment]] = []
    ordered = sorted(segments, key=lambda s: (s.length, s.prefix_length))
    for segment in reversed(ordered):
        if clusters:
            group = [*clusters[-1], segment]
            longest = max(s.length for s in group)
            area = longest * (max(s.prefix_length for s in group) + longest)
            wasted = sum(area - s.length * (s.prefix_length + s.length) for s in group) * width
            if wasted < CALL_COST * (len(group) - 1):
                clusters[-1] = group
                continue
        clusters.append([segment])
    return clusters


def _group(segments: list[Segment], device: torch.device) -> Group:
    """Index tensors of one attention call."""
    start, length, prefix, before = (
        torch.tensor([getattr(s, name) for s in segments], device=device)[:, None]
        for name in ("start", "length", "prefix", "prefix_length")
    )
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


def _plan(row: Row, width: int) -> tuple[list[Group], Tensor]:
    """The row's attention calls, and where each token's result lies in their concatenated outputs."""
    if ("groups", width) not in row.cache:
        device = row.ids.device
        clusters = _clusters(row.segments, width)
        groups = [_group(cluster, device) for cluster in clusters]
        offsets = accumulate((g.queries_BL.numel() for g in groups), initial=0)
        home = torch.empty(row.ids.numel(), dtype=torch.long, device=device)
        for offset, group, cluster in zip(offsets, groups, clusters, strict=False):
            longest = group.queries_BL.shape[1]
            for place, s in enumerate(cluster):
                first = offset + place * longest
                home[s.start : s.start + s.length] = torch.arange(first, first + s.length, device=device)
        row.cache["groups", width] = groups, home
    return row.cache["groups", width]


def _visible(row: Row, group: Group, window: int | None) -> Tensor:
    """Boolean mask [B, 1, L, S], made once per row and window."""
    key = ("mask", id(group), window)
    if key not in row.cache:
        visible = group.distance_BLS >= 0
        if window:
            visible &= group.distance_BLS < window
        padding = torch.arange(group.distance_BLS.shape[1], device=visible.device)
        own = visible.shape[2] - visible.shape[1]
        visible[:, padding, own + padding] = True  # a padded query needs one key; its result is thrown away
        row.cache[key] = visible[:, None]
    return row.cache[key]


def _bent_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float, softcap: Any, sinks: Any) -> Tensor:
    """Attention written out, for models that bend the scores (Gemma 2's soft cap, gpt-oss's sinks)."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    if sinks is not None:
        scores = torch.cat([scores, sinks.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)], -1)
    weights = scores.softmax(-1)
    return weights[..., : k.shape[2]] @ v


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
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [tokens, heads, d]
    groups, home = _plan(packed_row, q.shape[1] * q.shape[2])
    scale = scaling if scaling is not None else q.shape[-1] ** -0.5
    outputs = []
    for group in groups:
        visible = _visible(packed_row, group, sliding_window)
        q_BHLD = q.index_select(0, group.queries_BL.flatten()).unflatten(0, group.queries_BL.shape).transpose(1, 2)
        k_BHSD, v_BHSD = (
            x.index_select(0, group.keys_BS.flatten()).unflatten(0, group.keys_BS.shape).transpose(1, 2) for x in (k, v)
        )
        if softcap is None and s_aux is None:
            out = F.scaled_dot_product_attention(
                q_BHLD, k_BHSD, v_BHSD, attn_mask=visible, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
            )
        else:
            out = _bent_attention(q_BHLD, k_BHSD, v_BHSD, visible, scale, softcap, s_aux)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, home)[None], None


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
