"""InternLM2 and InternLM2.5 checkpoints as what they are, Llamas: no remote code, one tensor in memory at a time.

    labkit convert-internlm2 internlm2_5-1_8b-chat my-llama       # or give the folder to any command as it is

transformers 5 has no `internlm2`, and the code in the checkpoints breaks on it. The architecture is Llama's; three
things are stored in another way. `wqkv` holds, per key-value head, its query heads, then the key, then the value;
weights have other names; the chat marks are called `[UNUSED_TOKEN_...]` in the SentencePiece file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from labkit import internlm2_words
from labkit.records import LabError

OUTER = {
    "model.tok_embeddings.weight": "model.embed_tokens.weight",
    "model.norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
INNER = {  # within a layer; wqkv besides
    "attention.wo.weight": "self_attn.o_proj.weight",
    "attention_norm.weight": "input_layernorm.weight",
    "feed_forward.w1.weight": "mlp.gate_proj.weight",
    "feed_forward.w2.weight": "mlp.down_proj.weight",
    "feed_forward.w3.weight": "mlp.up_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}
WQKV = "attention.wqkv.weight"


@dataclass(frozen=True)
class Checkpoint:
    """An InternLM2 folder: its settings as a Llama's, and which file holds each tensor."""

    folder: Path
    config: LlamaConfig
    files: dict[str, str]  # native tensor name -> file name


def settings_of(folder: Path) -> dict[str, Any]:
    """The folder's config.json, or an empty dict where there is none that can be read."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_native(folder: Path) -> bool:
    """Whether the folder holds an InternLM2 in its own layout."""
    return settings_of(folder).get("model_type") == "internlm2"


def config_of(folder: Path) -> LlamaConfig:
    """The Llama settings that mean the same; raises `LabError` for a variant that is not one."""
    own = settings_of(folder)
    _refuse(folder, own)
    try:
        heads, width = own["num_attention_heads"], own["hidden_size"]
        wanted = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        return LlamaConfig(
            **{name: own[name] for name in wanted},
            num_key_value_heads=own.get("num_key_value_heads") or heads,
            head_dim=width // heads,
            max_position_embeddings=own["max_position_embeddings"],
            rms_norm_eps=own["rms_norm_eps"],
            rope_parameters={"rope_theta": float(own["rope_theta"]), **_rope(folder, own)},
            hidden_act="silu",
            dtype=own.get("torch_dtype") or own.get("dtype"),
            attention_bias=False,
            mlp_bias=False,
            tie_word_embeddings=own.get("tie_word_embeddings", False),
            **{f"{name}_token_id": own.get(f"{name}_token_id") for name in ("bos", "eos", "pad")},
        )
    except KeyError as error:
        raise LabError(f"model {folder}: config.json: {error} is missing") from None


def _refuse(folder: Path, own: dict[str, Any]) -> None:
    """Raises `LabError` for what would load and then compute something else."""
    wrong = None
    classes = own.get("architectures") or ["InternLM2ForCausalLM"]
    if own.get("model_type") != "internlm2":
        wrong = f"model_type {own.get('model_type')!r} is not internlm2"
    elif classes != ["InternLM2ForCausalLM"]:
        wrong = f"{', '.join(classes)} is not a causal language model"
    elif own.get("bias"):
        wrong = "it has biases (bias: true), and how they are split is not known here"
    elif own.get("hidden_act", "silu") != "silu":
        wrong = f"hidden_act {own['hidden_act']!r} is not silu"
    elif own.get("quantization_config"):
        wrong = "its weights are quantised: take the checkpoint that they were made from"
    if wrong:
        raise LabError(f"model {folder}: this InternLM2 cannot be read as a Llama: {wrong}")


def _rope(folder: Path, own: dict[str, Any]) -> dict[str, Any]:
    scaling = own.get("rope_scaling")
    if scaling is None:
        return {"rope_type": "default"}
    kind = scaling.get("type") or scaling.get("rope_type")
    if kind not in ("dynamic", "linear") or set(scaling) - {"type", "rope_type", "factor"}:
        raise LabError(f"model {folder}: rope_scaling {scaling} is not known: InternLM2 has dynamic and linear")
    return {"rope_type": kind, "factor": float(scaling["factor"])}


# --- weights ---------------------------------------------------------------------------------------------------------


def examine(folder: Path) -> Checkpoint:
    """The checkpoint, from its headers alone; raises `LabError` for missing, unknown or misshapen tensors."""
    config, files, found = config_of(folder), {}, {}
    for name in _weight_files(folder):
        with _opened(folder / name) as stored:
            for key in stored.keys():  # noqa: SIM118 - not a dict
                files[key], found[key] = name, tuple(stored.get_slice(key).get_shape())
    expected = shapes(config)
    if odd := sorted(set(expected) ^ set(files)):
        what = f"{odd[0]} is missing" if odd[0] in expected else f"{odd[0]} is not known: not a plain InternLM2"
        raise LabError(f"model {folder}: {what}" + (f", and {len(odd) - 1} more" if len(odd) > 1 else ""))
    for key, shape in expected.items():
        if found[key] != shape:
            raise LabError(f"model {folder}: {key} has the shape {found[key]}, config.json says {shape}")
    return Checkpoint(folder, config, files)


def _weight_files(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        whole = [name for name in ["model.safetensors"] if (folder / name).is_file()]
        return whole or sorted(path.name for path in folder.glob("*.safetensors"))
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LabError(f"model {folder}: {index.name} is damaged: copy it again") from None
    for name in names:
        if name != Path(name).name or not (folder / name).is_file():
            raise LabError(f"model {folder}: {name} is not there, and {index.name} lists it: copy it too")
    return names


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "pt") as stored:
            yield stored
    except SafetensorError as error:
        raise LabError(f"model {path.parent}: {path.name} is damaged ({error}): copy it again") from None


def shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Native tensor name -> shape."""
    width, middle, words = config.hidden_size, config.intermediate_size, config.vocab_size
    rows = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    layer = {
        WQKV: (rows, width),
        "attention.wo.weight": (width, width),
        "attention_norm.weight": (width,),
        "feed_forward.w1.weight": (middle, width),
        "feed_forward.w2.weight": (width, middle),
        "feed_forward.w3.weight": (middle, width),
        "ffn_norm.weight": (width,),
    }
    outer = {"model.tok_embeddings.weight": (words, width), "model.norm.weight": (width,)}
    if not config.tie_word_embeddings:
        outer["output.weight"] = (words, width)
    layers = range(config.num_hidden_layers)
    return outer | {f"model.layers.{i}.{name}": shape for i in layers for name, shape in layer.items()}


def as_llama(name: str, weight: Tensor, config: LlamaConfig) -> dict[str, Tensor]:
    """One native tensor as Llama's: renamed, or `wqkv` [heads of each group + 2, ...] split into its three."""
    if name in OUTER:
        return {OUTER[name]: weight}
    layer, inner = re.fullmatch(r"(model\.layers\.\d+\.)(.+)", name).groups()
    if inner != WQKV:
        return {layer + INNER[inner]: weight}
    groups, size = config.num_key_value_heads, config.head_dim
    each = weight.view(groups, -1, size, config.hidden_size)
    parts = {"q": each[:, :-2], "k": each[:, -2], "v": each[:, -1]}
    return {f"{layer}self_attn.{n}_proj.weight": part.reshape(-1, config.hidden_size) for n, part in parts.items()}


def tensors(checkpoint: Checkpoint, names: list[str]) -> Iterator[tuple[str, Tensor]]:
    """Llama's tensors, one native one after the other. The file is opened anew for each: closing it gives the memory
    of what was read back."""
    for name in names:
        with _opened(checkpoint.folder / checkpoint.files[name]) as stored:
            weight = stored.get_tensor(name)
        yield from as_llama(name, weight, checkpoint.config).items()


def load(folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> LlamaForCausalLM:
    """The model in eval mode, trainable; at no time is more than one tensor in memory besides it."""
    checkpoint = examine(folder)
    with torch.device("meta"):
        model = LlamaForCausalLM(checkpoint.config)
    for name, weight in tensors(checkpoint, sorted(checkpoint.files)):
        owner, _, leaf = name.rpartition(".")
        fresh = weight.to(device, dtype, copy=True)  # never a view into the mapped file
        model.get_submodule(owner).register_parameter(leaf, nn.Parameter(fresh))
        del weight
    rotary = type(model.model.rotary_emb)  # its frequencies are no weights: built anew, outside of `meta`
    model.model.rotary_emb = rotary(checkpoint.config).to(device)
    model.tie_weights()
    model.generation_config = internlm2_words.generation(folder, checkpoint.config)
    return model.eval()
