"""LoRA: small matrices trained beside frozen weights (arXiv 2106.09685), by the package peft (extra `lora`).

A checkpoint then holds the matrices alone. The finished student has them merged in and is an ordinary model folder;
they lie beside it in `adapter/`, in peft's own format.
"""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from labkit.config import RunConfig
from labkit.records import LabError

FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # what peft puts before a parameter's name in its files


def peft() -> Any:
    """The package, or a `LabError` that says how to get it."""
    try:
        return importlib.import_module("peft")
    except ImportError:
        raise LabError("lora_rank: LoRA needs the package peft: pip install peft (or labkit's extra `lora`)") from None


def attach(model: PreTrainedModel, config: RunConfig) -> Any:
    """Freeze `model` and put adapters beside all its linear layers but the output; returns peft's settings of them."""
    package = peft()
    settings = package.LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha or 2 * config.lora_rank,
        target_modules="all-linear",
        base_model_name_or_path=config.student,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        package.inject_adapter_in_model(settings, model)
    return settings


def _own(model: PreTrainedModel) -> dict[str, Tensor]:
    """The adapters' parameters by the names that peft's files have."""
    found = {name: p for name, p in model.named_parameters() if ".lora_" in name}
    return {_PREFIX + name.replace(".default.", "."): p for name, p in found.items()}


def save(model: PreTrainedModel, settings: Any, folder: Path) -> None:
    """Write the adapters as `peft.PeftModel.from_pretrained(base, folder)` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    settings.save_pretrained(folder)
    save_file({name: p.detach().cpu().contiguous() for name, p in _own(model).items()}, folder / FILE)


@torch.no_grad()
def read(model: PreTrainedModel, folder: Path) -> None:
    """Set the adapters to those of a folder."""
    saved = load_file(folder / FILE)
    for name, parameter in _own(model).items():
        parameter.copy_(saved[name])


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """A copy, in the main memory, with the adapters added to the weights: an ordinary model again."""
    layer = importlib.import_module("peft.tuners.lora").LoraLayer
    whole = copy.deepcopy(model).to("cpu")
    for name, module in list(whole.named_modules()):
        if isinstance(module, layer):
            module.merge()
            parent, _, own = name.rpartition(".")
            setattr(whole.get_submodule(parent), own, module.get_base_layer())
    whole._hf_peft_config_loaded = False
    return whole.requires_grad_(True)
