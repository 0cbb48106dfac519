"""Write an InternLM2 checkpoint as the plain Llama checkpoint that it is, for any program that reads those.

labkit convert-internlm2 internlm2_5-1_8b-chat internlm2_5-1_8b-chat-llama
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import save_file

from labkit import internlm2, internlm2_words
from labkit.records import LabError


def convert(source: Path, target: Path) -> bool:
    """Write the model as a plain Llama folder, which appears whole or not at all; returns whether a tokenizer is in it.

    Numbers keep their type, files their division; a folder without `tokenizer.model` is converted without one. Raises
    `LabError` where `target` exists or `source` cannot be read.
    """
    if target.exists() or target.is_symlink():
        raise LabError(f"{target} exists: choose another folder, or remove it first")
    if not (source / "config.json").is_file():
        raise LabError(f"{source}: not the folder of a checkpoint: there is no config.json in it")
    checkpoint = internlm2.examine(source)
    words = internlm2_words.tokenizer(source) if internlm2_words.has_words(source) else None
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".convert-", dir=target.parent) as scratch:
        new = Path(scratch) / target.name
        new.mkdir()
        _write_weights(checkpoint, new)
        checkpoint.config.architectures = ["LlamaForCausalLM"]
        checkpoint.config.save_pretrained(new)
        internlm2_words.generation(source, checkpoint.config).save_pretrained(new)
        if words:
            words.save_pretrained(new)
        for path in [*source.glob("LICENSE*"), *source.glob("NOTICE*")]:
            shutil.copyfile(path, new / path.name)
        new.rename(target)
    return words is not None


def _write_weights(checkpoint: internlm2.Checkpoint, target: Path) -> None:
    shards = sorted(set(checkpoint.files.values()))
    where, size = {}, 0
    for number, shard in enumerate(shards, 1):
        whole = len(shards) == 1
        name = "model.safetensors" if whole else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = dict(internlm2.tensors(checkpoint, [key for key, file in checkpoint.files.items() if file == shard]))
        save_file({key: weight.contiguous() for key, weight in tensors.items()}, target / name, {"format": "pt"})
        where |= dict.fromkeys(tensors, name)
        size += sum(weight.nbytes for weight in tensors.values())
    if len(shards) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
