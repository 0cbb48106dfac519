"""Faster matrix products on the CPU: a model's linear layers through oneDNN for as long as a `with` block lasts.

PyTorch sends fp32 products to MKL, which on processors not made by Intel leaves the wide vector units unused: on an
AMD EPYC with AVX-512 it reached 211 GFLOP/s on two cores where oneDNN, which PyTorch also carries, reached 420-500.
On Intel's own MKL is the faster one by far, a training step takes 0.73 of the time, so there training stays with it.
Results differ by rounding only, gradients flow, and the weights stay where they are.

    with onednn_linears(model):
        model(...)

Generation multiplies the same weights by few rows, again and again: `onednn_linears(model, rows=64)` lays a copy of
them out once as the kernel wants them, which made such products 1.2 to 2 times faster on that machine.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_LEAST = 1 << 16  # weights; below that MKL, with less to set up, is the faster one
_HERE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _intel() -> bool:
    """Whether Intel made the processor; by its name, since a choice by timing could change in the middle of a run."""
    told = Path("/proc/cpuinfo")
    return "GenuineIntel" in (told.read_text() if told.exists() else platform.processor())


_MKL = _intel()


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`rows` (..., I) times `weight` (O, I) transposed, plus `bias` (O): the shape (..., O)."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """The product above with its gradients, computed by the same kernel."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        to_rows, to_weight, to_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.t(), None) if to_rows else None,
            _product(flat.t(), rows.reshape(-1, rows.shape[-1]).t(), None) if to_weight else None,
            flat.sum(0) if to_bias else None,
        )


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` for fp32 on the CPU, with gradients; see the module's text for why."""
    if torch.is_grad_enabled():
        return _Linear.apply(rows, weight, bias)
    return _product(rows, weight, bias)


def _layer(module: nn.Module, rows: Tensor) -> Tensor:
    return linear(rows, module.weight, module.bias)


def _conv1d(module: Conv1D, rows: Tensor) -> Tensor:
    return linear(rows, module.weight.t(), module.bias)  # GPT-2 keeps its weights transposed


def _laid_out(weight: Tensor, bias: Tensor | None, rows: Tensor) -> Tensor:
    return _product(rows, weight, bias)


_KINDS = {nn.Linear: _layer, Conv1D: _conv1d}  # exact types: a quantised or adapted layer keeps its own way


def _fits(module: nn.Module) -> bool:
    if type(module) not in _KINDS or "forward" in vars(module):
        return False
    weight = module.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() >= _LEAST


def _replacement(module: nn.Module, rows: int | None) -> Callable[[Tensor], Tensor]:
    if rows is None:
        return partial(_KINDS[type(module)], module)
    weight = module.weight.detach() if type(module) is nn.Linear else module.weight.detach().t().contiguous()
    bias = None if module.bias is None else module.bias.detach()
    return partial(_laid_out, torch.ops.mkldnn._reorder_linear_weight(weight, rows), bias)


@contextmanager
def onednn_linears(model: nn.Module, rows: int | None = None) -> Iterator[None]:
    """Within the block, `model`'s fp32 linear layers on the CPU compute through oneDNN; elsewhere it does nothing, and
    with Intel's processors only if `rows` are given.

    `rows`: without gradients, on a copy of the weights laid out for about so many rows at a time, unless the copy
    would take more than a quarter of the memory that is free.
    """
    swapped = [module for module in model.modules() if _fits(module)] if _HERE and not (rows is None and _MKL) else []
    copied = sum(module.weight.nbytes for module in swapped)
    if copied > psutil.virtual_memory().available // 4:
        rows = None
    for module in swapped:
        module.forward = _replacement(module, rows)
    try:
        yield
    finally:
        for module in swapped:
            del module.forward
