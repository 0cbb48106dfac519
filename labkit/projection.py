"""Token log-probabilities and their gradients without ever holding a batch's vocabulary scores.

The last layer of a language model is as wide as its vocabulary: for 2,000 tokens of a 49,152-token vocabulary it makes
400 MB, and autograd keeps several such copies. Here a chunk of whole pairs is projected, its loss taken, and its scores
turned into their own gradient in place, all inside the model's forward; the next chunk uses the memory again and no
projection is computed twice. The model's own output layer does the projecting, whatever it is (tied, biased, LoRA).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from labkit.odds import Contrast, differing
from labkit.packing import Row, Sequence, counted

LOGITS_AT_ONCE = 2**25  # vocabulary scores of one chunk: 128 MiB in fp32


@dataclass(frozen=True)
class Chunk:
    """Whole pairs whose logits exist at the same time. n predicted tokens in S sequences."""

    rows: Tensor  # [n] of the flattened hidden states
    targets: Tensor  # [n]
    sequence: Tensor  # [n] which sequence a token belongs to
    lengths: list[float]  # S: the tokens of each sequence that its mean is taken over
    weights: Tensor  # [n] how often the token counts in the NLL
    chosen: list[int]  # sequences of the pairs that have a rejected one,
    rejected: list[int]  # in the same order
    contrasted: Tensor | None = None  # [n] 1 for tokens that count in a sequence's mean; None: all of them


def _chunk(units: list[list[tuple[Sequence, int]]], device: torch.device, contrast: Contrast) -> Chunk:
    """Of units [(chosen, weight), (rejected, 0)], [(chosen, weight)] and [(prompt, weight)]."""
    parts = [part for unit in units for part in unit]
    firsts = [sum(len(u) for u in units[:i]) for i, unit in enumerate(units) if len(unit) == 2]
    lengths = [len(sequence.targets) for sequence, _ in parts]
    counts = torch.tensor(lengths, device=device)
    masks = [mask for unit in units for mask in _masks(unit, contrast)] if contrast != "all" else []
    return Chunk(
        torch.tensor([row for sequence, _ in parts for row in sequence.rows], device=device),
        torch.tensor([token for sequence, _ in parts for token in sequence.targets], device=device),
        torch.repeat_interleave(torch.arange(len(parts), device=device), counts),
        [sum(mask) for mask in masks] or lengths,
        torch.repeat_interleave(torch.tensor([float(weight) for _, weight in parts], device=device), counts),
        firsts,
        [first + 1 for first in firsts],
        torch.tensor([kept for mask in masks for kept in mask], device=device) if masks else None,
    )


def _masks(unit: list[tuple[Sequence, int]], contrast: Contrast) -> tuple[list[float], ...]:
    """Which tokens of a unit's sequences count in their means: those that a pair's sides do not share, or as marked."""
    targets = [sequence.targets for sequence, _ in unit]
    if contrast == "differing" and len(targets) == 2:
        return differing(*targets)
    return tuple(map(counted, targets))


def chunks_of(row: Row, with_prompt: bool, limit: int, contrast: Contrast = "all") -> list[Chunk]:
    """Cut a row's predicted tokens into chunks of at most `limit` tokens, never inside a pair.

    With `contrast` the means of a pair's sequences leave out the tokens that both sides share, or that are not marked.
    """
    units: list[list[tuple[Sequence, int]]] = []
    for prompt, pairs in zip(row.prompts, row.pairs, strict=True):
        if with_prompt and prompt.targets:
            units.append([(prompt, len(pairs))])
        units += [[(c, 1)] if r is None else [(c, 1), (r, 0)] for c, r in pairs]
    chunks, held, size = [], [], 0
    for unit in units:
        tokens = sum(len(sequence.targets) for sequence, _ in unit)
        if held and size + tokens > limit:
            chunks.append(_chunk(held, row.ids.device, contrast))
            held, size = [], 0
        held.append(unit)
        size += tokens
    return [*chunks, _chunk(held, row.ids.device, contrast)]


class TokenLogps(torch.autograd.Function):
    """logits [n, vocabulary], targets [n] -> log-probabilities [n]. Turns `logits` itself into its gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        logits = logits.detach()
        wanted = logits.gather(1, targets[:, None])
        peak = logits.amax(1, keepdim=True)
        total = logits.sub_(peak).exp_().sum(1, keepdim=True)
        ctx.save_for_backward(targets, total)
        ctx.exponentials = logits
        return (wanted - peak - total.log()).squeeze(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        targets, total = ctx.saved_tensors
        grads = ctx.exponentials.mul_(-grad[:, None] / total)  # grad * (onehot - softmax)
        return grads.scatter_add_(1, targets[:, None], grad[:, None]), None


class ChunkedLoss(torch.autograd.Function):
    """Loss of `run` over hidden states [tokens, d], its gradients made chunk by chunk during the forward pass."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., Tensor], chunks: list[Chunk], hidden: Tensor, *weights: Tensor) -> Tensor:
        loss = torch.zeros((), device=hidden.device)
        ctx.grads = [torch.zeros_like(hidden), *[None] * len(weights)]
        for chunk in chunks:
            with torch.enable_grad():
                rows = hidden.detach().index_select(0, chunk.rows).requires_grad_()
                part = run(rows, chunk)
            rows_grad, *others = torch.autograd.grad(part, [rows, *weights])
            ctx.grads[0].index_add_(0, chunk.rows, rows_grad)
            for i, other in enumerate(others, 1):
                ctx.grads[i] = other if ctx.grads[i] is None else ctx.grads[i].add_(other)
            loss += part.detach()
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, None
        return (None, None, *[g if grad == 1 else g.mul_(grad) for g in grads])


def _bend(config: Any) -> Callable[[Tensor], Tensor]:
    """What the model does to its logits after the output layer: Granite's divisor, Gemma 2's soft cap."""
    divisor = getattr(config, "logits_scaling", None) or 1.0
    cap = getattr(config, "final_logit_softcapping", None)

    def bend(logits: Tensor) -> Tensor:
        logits = logits if divisor == 1.0 else logits / divisor
        return logits if cap is None else cap * torch.tanh(logits / cap)

    return bend


@contextmanager
def _instead(owner: Any, **values: Any) -> Iterator[None]:
    """Within the block, `owner` has these attributes in place of its own."""
    before = {name: vars(owner)[name] for name in values if name in vars(owner)}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name in values:
            delattr(owner, name)
        for name, value in before.items():
            setattr(owner, name, value)


@contextmanager
def _head_replaced(model: nn.Module, work: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]) -> Iterator[None]:
    """Within the block the model's output is `work(hidden [tokens, d], project)`, shaped [1, 1, -1].

    It runs inside the model's own forward, where wrappers for many devices have gathered the weights. `project` maps
    hidden states [n, d] to the model's logits [n, vocabulary].
    """
    head, config = model.get_output_embeddings(), model.config
    layer, bend = head.forward, _bend(config)
    neutral = {"logits_scaling": 1.0, "final_logit_softcapping": None}

    def forward(hidden: Tensor) -> Tensor:
        result = work(hidden.flatten(0, -2), lambda rows: bend(layer(rows).float()))
        return result.view(1, 1, -1).clone()  # FSDP hooks itself to what a model returns, and cannot to a view

    with _instead(head, forward=forward), _instead(config, **{k: v for k, v in neutral.items() if hasattr(config, k)}):
        yield


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of data-parallel training."""
    while hasattr(model, "module"):
        model = model.module
    return model


def chunk_limit(model: nn.Module) -> int:
    """Predicted tokens whose logits may exist at the same time."""
    return max(1, LOGITS_AT_ONCE // unwrap(model).config.get_text_config().vocab_size)


def run_packed(model: nn.Module, row: Row, work: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]) -> Tensor:
    """What `work` makes of the packed row's last hidden states, flattened; see `_head_replaced`.

    The (wrapped) model itself is called, so that hooks of data-parallel training run.
    """
    with _head_replaced(unwrap(model), work):
        out = model(input_ids=row.ids, position_ids=row.positions, use_cache=False, packed_row=row)
    return out.logits.flatten()
