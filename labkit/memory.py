"""What training will take of the memory, told before the first trace is sampled.

    parts = needed(model, max_tokens=4096, checkpointing=False)

Weights, gradients and AdamW's two moments are counted; what the backward pass keeps per token is measured, by one
forward pass over a few tokens of the very model, so that it holds for any architecture.
"""

from __future__ import annotations

import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel

from labkit.projection import LOGITS_AT_ONCE

BASE = 0.55e9  # bytes of a process that has loaded torch and transformers and nothing else
_TOKENS = 64  # in the trial


def kept_per_token(model: PreTrainedModel) -> float:
    """Bytes that one more token in a forward pass keeps for the backward pass, without gradient checkpointing."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}
    held = []  # storages stay alive, so that no address comes twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(storage)
        return tensor.detach()  # a node that keeps its own output would keep itself, and the model, for ever

    ids = torch.arange(_TOKENS, device=model.device)[None] % model.config.get_text_config().vocab_size
    training = model.training
    model.eval()  # no dropout masks, and no recomputation
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.base_model(input_ids=ids, use_cache=False)
    model.train(training)
    return sum(kept.values()) / _TOKENS


def needed(
    model: PreTrainedModel, max_tokens: int, checkpointing: bool, moments: float | None = None
) -> dict[str, float]:
    """Bytes by part of a training step of `max_tokens` tokens: weights, gradients, optimiser, activations, scores.

    `moments` are the optimiser's bytes per trained weight; AdamW holds two of the weight's own size. `scores` are the
    vocabulary scores of one chunk. What the process needs before it holds a model is `BASE`.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = float(sum(p.nbytes for p in trained))
    config = model.config.get_text_config()
    per_token, layers = kept_per_token(model), config.num_hidden_layers
    if checkpointing:  # each layer's input, and one layer at a time in full
        per_token = layers * config.hidden_size * model.dtype.itemsize + per_token / layers
    chunk = min(LOGITS_AT_ONCE, max_tokens * config.vocab_size)
    return {
        "weights": float(sum(p.nbytes for p in model.parameters())),
        "gradients": gradients,
        "optimizer": 2 * gradients if moments is None else moments * sum(p.numel() for p in trained),
        "activations": max_tokens * per_token,
        "scores": 4.0 * chunk,
    }


def free(device: torch.device) -> float:
    """Bytes that are free where the model is, or will be: the machine's memory, or the GPU's."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return float(psutil.virtual_memory().available)


def verdict(parts: dict[str, float], room: float, max_tokens: int) -> tuple[bool, str]:
    """Whether `parts` fit into `room` bytes beside the weights that are loaded already, and a line that says so."""
    more = sum(parts.values()) - parts["weights"]
    told = ", ".join(f"{name} {size / 1e9:.2g}" for name, size in parts.items())
    line = f"memory for training, in GB: {told}; {more / 1e9:.2g} more than now, {room / 1e9:.2g} free"
    if more <= room:
        return True, line
    fixed = parts["gradients"] + parts["optimizer"] + parts["scores"]
    fitting = int((room - fixed) / parts["activations"] * max_tokens) if room > fixed else 0
    advice = f"--set max_tokens={fitting}" if fitting >= 256 else "a smaller student"
    return False, f"{line}: it may not fit; try --set gradient_checkpointing=true, or {advice}"
