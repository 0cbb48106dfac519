"""A model split over processes by PyTorch's FSDP (`fully_shard`), and back: each holds a part of every layer.

Gradients and AdamW's moments are split with the weights, so that a student need not fit one GPU to be trained. To speak
and to be saved it is put together again, in a whole model that waits in the main memory in the meantime.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel


def split(model: PreTrainedModel) -> PreTrainedModel:
    """Split `model` where it is, layer by layer; returns a whole copy of it in the main memory."""
    plain = copy.deepcopy(model).to("cpu")
    for module in list(model.modules()):
        if type(module).__name__ in (model._no_split_modules or ()):
            fully_shard(module)
    fully_shard(model)
    return plain


def full(value: Any) -> Any:
    """A tensor that is split, whole; anything else as it is. Every process must ask at the same time."""
    return value.full_tensor() if isinstance(value, DTensor) else value


@torch.no_grad()
def fill(plain: PreTrainedModel, model: PreTrainedModel) -> None:
    """Give `plain` the weights of the split `model`, and move it to where that is."""
    plain.to(next(model.parameters()).device)
    for ours, theirs in zip(plain.parameters(), model.parameters(), strict=True):
        ours.copy_(full(theirs))


def moments(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimiser's state dict with whole tensors in the main memory, as if nothing were split."""
    state = optimizer.state_dict()
    whole = {i: {name: full(value).cpu() for name, value in own.items()} for i, own in state["state"].items()}
    return {**state, "state": whole}


def dealt(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A state dict of whole tensors, each split as its parameter is."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def part(value: torch.Tensor, like: DTensor) -> torch.Tensor:
        if not value.ndim:
            return value  # the number of steps
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)

    state = {i: {name: part(value, parameters[i]) for name, value in own.items()} for i, own in saved["state"].items()}
    return {**saved, "state": state}
