"""What a training step takes is told beforehand, and is about what it then takes."""

import gc
import weakref

import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from labkit import memory
from labkit.orpo import Example, train_step

SHAPES = {
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4, vocab_size=300)
    ),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=128, n_layer=4, n_head=4, vocab_size=300)),
    "gemma": lambda: GemmaForCausalLM(
        GemmaConfig(
            hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=1,
            head_dim=32, vocab_size=300,
        )
    ),
}  # fmt: skip


def kept_by_a_step(model, tokens):
    """Bytes that a real step holds when its backward pass begins."""
    third = tokens // 3
    rows = [Example(tuple(range(third)), (tuple(range(third)),), (tuple(range(1, third + 1)),))]
    storages = {}

    def note(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    step = {"lam": 1.0, "max_tokens": tokens}
    train_step(model, rows, **step)  # the check whether it packs is behind us
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        train_step(model, rows, **step)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return sum(storage.nbytes() for address, storage in storages.items() if address not in weights)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_told_is_about_what_a_step_keeps(shape):
    model = SHAPES[shape]()
    told = memory.needed(model, 768, checkpointing=False)["activations"]
    assert told == pytest.approx(kept_by_a_step(model, 768), rel=0.3)
    assert memory.needed(model, 768, checkpointing=True)["activations"] < 0.6 * told


def test_the_parts_of_adamw_in_fp32_are_four_times_the_weights():
    model = SHAPES["llama"]()
    parts = memory.needed(model, 64, checkpointing=False)
    size = 4 * model.num_parameters()
    assert (parts["weights"], parts["gradients"], parts["optimizer"]) == (size, size, 2 * size)


def test_asking_leaves_the_model_as_it_was():
    model = SHAPES["llama"]().train()
    memory.needed(model, 64, checkpointing=False)
    assert model.training and all(p.grad is None for p in model.parameters())


def test_asking_does_not_keep_the_model_alive():
    """A table of methods asks once per run, in one process."""
    model = SHAPES["llama"]()
    memory.needed(model, 256, checkpointing=False)
    gone = weakref.ref(next(model.parameters()))
    del model
    gc.collect()
    assert gone() is None


def test_where_it_does_not_fit_the_line_says_what_would():
    parts = {"weights": 1e9, "gradients": 1e9, "optimizer": 2e9, "activations": 4e9, "scores": 0.1e9}
    assert memory.verdict(parts, 8e9, 4096)[0]
    fits, line = memory.verdict(parts, 5.1e9, 4096)
    assert not fits and "gradient_checkpointing=true" in line and "max_tokens=2048" in line
    assert "a smaller student" in memory.verdict(parts, 2e9, 4096)[1]
