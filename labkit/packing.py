"""Rows for training: all triplets of a prompt in one row without padding, the prompt computed once.

    [prompt A][chosen 1][rejected 1][chosen 2][rejected 2]...[prompt B]...

A branch (a response) attends to its prompt and, causally, to itself; its positions go on from the prompt's. So every
branch sees exactly what it would see alone (row_attention.py), and K pairs pay for one prompt, not 2 K. `pad` builds
the ordinary padded batch for models where that is not exact; `split` cuts a batch to a budget of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

Ids = tuple[int, ...]
Pair = tuple[Ids, Ids | None]  # chosen, rejected


class Marked(tuple[int, ...]):
    """Token ids of a response of which not all count in the odds; whoever knows nothing of it sees the ids."""

    kept: list[float]  # 1 for a token that counts, else 0

    def __new__(cls, ids: Ids, kept: list[float]) -> Marked:
        """`ids` with `kept`, of the same length and not all 0."""
        made = super().__new__(cls, ids)
        made.kept = kept
        return made

    def __getnewargs__(self) -> tuple[Ids, list[float]]:
        """For copies sent to another process."""
        return tuple(self), self.kept


def counted(ids: Ids) -> list[float]:
    """1 for each token of a response that counts in the odds, else 0: all of them, or as marked."""
    return ids.kept if isinstance(ids, Marked) else [1.0] * len(ids)


@dataclass(frozen=True)
class Example:
    """Token ids of one prompt's triplets: chosen[i] pairs with rejected[i]; None leaves only the NLL term."""

    prompt: Ids
    chosen: tuple[Ids, ...]
    rejected: tuple[Ids | None, ...]


@dataclass(frozen=True)
class Sequence:
    """Predicted tokens: `targets[j]` is predicted by the hidden state at `rows[j]` of the flattened input."""

    rows: list[int]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Segment:
    """A stretch of the row that attends causally to itself and fully to the prefix before it."""

    start: int
    length: int
    prefix: int  # where its prompt starts
    prefix_length: int  # 0 for a prompt


@dataclass(frozen=True)
class Row:
    """A micro-batch ready for the model: packed (mask None, segments given) or padded (mask given)."""

    ids: Tensor  # [rows, tokens]
    positions: Tensor
    mask: Tensor | None
    prompts: list[Sequence]  # per example
    pairs: list[list[tuple[Sequence, Sequence | None]]]  # per example: chosen, rejected
    segments: list[Segment]
    cache: dict[Any, Any] = field(default_factory=dict)  # groups and masks, shared by all layers


def pack(examples: list[Example], device: torch.device | str = "cpu") -> Row:
    """One packed row [1, tokens] of all examples."""
    ids: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []

    def add(tokens: tuple[int, ...], prefix: int, prefix_length: int) -> Sequence:
        start = len(ids)
        ids.extend(tokens)
        positions.extend(range(prefix_length, prefix_length + len(tokens)))
        segments.append(Segment(start, len(tokens), prefix, prefix_length))
        if not prefix_length:
            return Sequence(list(range(start, start + len(tokens) - 1)), tokens[1:])
        return Sequence([prefix + prefix_length - 1, *range(start, start + len(tokens) - 1)], tokens)

    prompts, pairs = [], []
    for example in examples:
        start, length = len(ids), len(example.prompt)
        prompts.append(add(example.prompt, start, 0))
        pairs.append(
            [
                (add(chosen, start, length), None if rejected is None else add(rejected, start, length))
                for chosen, rejected in zip(example.chosen, example.rejected, strict=True)
            ]
        )
    tensors = (torch.tensor([values], device=device) for values in (ids, positions))
    return Row(*tensors, None, prompts, pairs, segments)


def pad(examples: list[Example], device: torch.device | str = "cpu") -> Row:
    """The plain batch [branches, longest]: the prompt again before every branch, padding on the right."""
    texts = [
        example.prompt + branch
        for example in examples
        for pair in zip(example.chosen, example.rejected, strict=True)
        for branch in pair
        if branch is not None
    ]
    width = max(map(len, texts))
    starts = iter(range(0, width * len(texts), width))

    def sequence(prompt: tuple[int, ...], branch: tuple[int, ...]) -> Sequence:
        first = next(starts) + len(prompt) - 1
        return Sequence(list(range(first, first + len(branch))), branch)

    prompts, pairs = [], []
    for example in examples:
        ready = [
            tuple(None if branch is None else sequence(example.prompt, branch) for branch in pair)
            for pair in zip(example.chosen, example.rejected, strict=True)
        ]
        last = ready[0][0].rows[0]  # the prompt's tokens are read where its first branch stands
        prompts.append(Sequence(list(range(last - len(example.prompt) + 1, last)), example.prompt[1:]))
        pairs.append(ready)
    ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=device)
    lengths = torch.tensor([len(text) for text in texts], device=device)
    positions = torch.arange(width, device=device).expand(len(texts), -1)
    return Row(ids, positions, (positions < lengths[:, None]).long(), prompts, pairs, [])


def deal(examples: list[Example], n: int) -> list[list[Example]]:
    """Cut a batch into `n` parts of about as many tokens each, between pairs; some are empty where pairs are few.

    A prompt whose pairs are cut apart is computed in each part.
    """
    pieces = [Example(e.prompt, (c,), (r,)) for e in examples for c, r in zip(e.chosen, e.rejected, strict=True)]
    sizes = [len(p.chosen[0]) + len(p.rejected[0] or ()) for p in pieces]
    total, seen = sum(sizes), 0
    parts: list[list[Example]] = [[] for _ in range(n)]
    for piece, size in zip(pieces, sizes, strict=True):
        part = parts[int((seen + size / 2) / total * n)]
        seen += size
        if part and part[-1].prompt == piece.prompt:
            piece = Example(piece.prompt, part[-1].chosen + piece.chosen, part.pop().rejected + piece.rejected)
        part.append(piece)
    return parts


def smallest(examples: list[Example]) -> Example:
    """One pair of the batch, for a process that has nothing to do while others compute."""
    shortest = min(examples, key=lambda example: len(example.prompt))
    return Example(shortest.prompt, shortest.chosen[:1], shortest.rejected[:1])


def split(examples: list[Example], max_tokens: int, packed: bool = True) -> list[list[Example]]:
    """Cut a batch into the fewest micro-batches of at most `max_tokens` tokens, about equally full, between pairs.

    A prompt may then repeat. A single pair longer than `max_tokens` is a micro-batch of its own: a pair cannot be cut.
    """
    best = _cut(examples, max_tokens, packed)
    too_small, enough = max_tokens // 2, max_tokens
    for _ in range(6 if len(best) > 1 else 0):
        middle = (too_small + enough) // 2
        found = _cut(examples, middle, packed)
        if len(found) > len(best):
            too_small = middle
        else:
            best, enough = found, middle
    return best


def _cut(examples: list[Example], max_tokens: int, packed: bool) -> list[list[Example]]:
    """Fill one micro-batch after the other."""
    batches: list[list[Example]] = []
    for example in examples:
        pairs = list(zip(example.chosen, example.rejected, strict=True))
        while pairs:
            held = batches[-1] if batches else []
            fitting = _fitting(held, example.prompt, pairs, max_tokens, packed) if held else 0
            if not fitting:
                held, fitting = [], max(1, _fitting([], example.prompt, pairs, max_tokens, packed))
                batches.append(held)
            taken, pairs = pairs[:fitting], pairs[fitting:]
            held.append(Example(example.prompt, tuple(c for c, _ in taken), tuple(r for _, r in taken)))
    return batches


def _fitting(held: list[Example], prompt: Ids, pairs: list[Pair], max_tokens: int, packed: bool) -> int:
    """How many of `pairs` the micro-batch `held` has room for."""
    lengths = [[len(branch) for branch in pair if branch is not None] for pair in pairs]
    taken = [[len(b) for b in (*e.chosen, *e.rejected) if b is not None] for e in held]
    if packed:
        sizes = accumulate(map(sum, lengths), initial=sum(map(sum, taken)) + sum(len(e.prompt) for e in held))
        return max(0, sum(size + len(prompt) <= max_tokens for size in sizes) - 1)
    rows = accumulate(map(len, lengths), initial=sum(map(len, taken)))
    longest = max((len(e.prompt) + max(t) for e, t in zip(held, taken, strict=True)), default=0)
    widths = accumulate((len(prompt) + max(pair) for pair in lengths), max, initial=longest)
    return max(0, sum(count * width <= max_tokens for count, width in zip(rows, widths, strict=True)) - 1)
