"""InternLM2's forward pass written down from its definition, on the native tensors; and folders in its native layout.

The oracle of tests/test_internlm2.py, where the logits of the original implementation check it in turn.
"""

import json

import torch
from safetensors.torch import save_file

SMALL = {
    "architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "bias": False, "hidden_act": "silu",
    "auto_map": {"AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM"}, "torch_dtype": "float32",
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 320, "max_position_embeddings": 48, "rms_norm_eps": 1e-5,
    "rope_theta": 1e6, "rope_scaling": None, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip


def weights(config, seed=0, dtype=torch.float32):
    """Random native tensors, wide enough that a wrong mapping shows."""
    draw = torch.Generator().manual_seed(seed)
    width, middle, words = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    size = width // config["num_attention_heads"]
    rows = (config["num_attention_heads"] + 2 * config["num_key_value_heads"]) * size
    shapes = {
        "model.tok_embeddings.weight": (words, width),
        "model.norm.weight": (width,),
        "output.weight": (words, width),
    }
    for i in range(config["num_hidden_layers"]):
        inner = {"attention.wqkv": (rows, width), "attention.wo": (width, width), "attention_norm": (width,),
                 "feed_forward.w1": (middle, width), "feed_forward.w2": (width, middle),
                 "feed_forward.w3": (middle, width), "ffn_norm": (width,)}  # fmt: skip
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in inner.items()}
    scale = width**-0.5
    return {
        name: (torch.randn(shape, generator=draw) * scale * 2 if len(shape) == 2 else
               1 + 0.2 * torch.randn(shape, generator=draw)).to(dtype)
        for name, shape in shapes.items()
    }  # fmt: skip


def logits(config, tensors, ids):
    """Logits [tokens, vocabulary] of one sequence."""
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    size, per = config["hidden_size"] // heads, heads // groups
    cos, sin = _rotation(config, len(ids), size)
    x = tensors["model.tok_embeddings.weight"][ids]
    hidden = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
    for i in range(config["num_hidden_layers"]):
        of = {name.split(f"layers.{i}.")[1]: w for name, w in tensors.items() if f"layers.{i}." in name}
        each = (_norm(config, x, of["attention_norm.weight"]) @ of["attention.wqkv.weight"].T).view(
            len(ids), groups, per + 2, size
        )
        q, k, v = each[:, :, :per], each[:, :, per : per + 1], each[:, :, per + 1]
        q, k = (part * cos + _turned(part) * sin for part in (q, k))
        score = torch.einsum("tghd,sgd->ghts", q, k[:, :, 0]) / size**0.5
        mixed = torch.einsum("ghts,sgd->tghd", score.masked_fill(hidden, -torch.inf).softmax(-1), v)
        x = x + mixed.reshape(len(ids), -1) @ of["attention.wo.weight"].T
        y = _norm(config, x, of["ffn_norm.weight"])
        gate, up = y @ of["feed_forward.w1.weight"].T, y @ of["feed_forward.w3.weight"].T
        x = x + (torch.nn.functional.silu(gate) * up) @ of["feed_forward.w2.weight"].T
    return _norm(config, x, tensors["model.norm.weight"]) @ tensors["output.weight"].T


def _norm(config, x, weight):
    return x * (x.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"]).rsqrt() * weight


def _turned(x):
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)


def _rotation(config, length, size):
    """cos and sin [tokens, 1, 1, head size]; dynamic: the base grows with the sequence beyond the trained length."""
    base, scaling = config["rope_theta"], config["rope_scaling"] or {"type": None, "factor": 1.0}
    factor, trained = scaling["factor"], config["max_position_embeddings"]
    if scaling["type"] == "dynamic" and length > trained:
        base *= (factor * length / trained - (factor - 1)) ** (size / (size - 2))
    places = torch.arange(length).float() / (factor if scaling["type"] == "linear" else 1)
    angles = torch.outer(places, base ** -(torch.arange(0, size, 2).float() / size))
    angles = torch.cat([angles, angles], -1)[:, None, None]
    return angles.cos(), angles.sin()


def write(folder, config, tensors, shards=1):
    """A native folder: config.json, and the weights in one file or in several with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder
    where = {}
    for n in range(shards):
        name = f"model-{n + 1:05d}-of-{shards:05d}.safetensors"
        part = {key: tensors[key] for key in sorted(tensors)[n::shards]}
        save_file(part, folder / name, {"format": "pt"})
        where |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder
