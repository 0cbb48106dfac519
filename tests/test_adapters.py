"""LoRA: only adapters move, the gradient is autograd's, a run resumes to the same bytes, and what is saved merges."""

import sys

import pytest
import torch
from forked import distilling, end, wait_for
from one_at_a_time import make_examples, make_model, plain_orpo

from labkit import adapters, distill, runs, training
from labkit.config import configure, recipe
from labkit.models import load
from labkit.orpo import disable_dropout, train_step
from labkit.records import LabError

peft = pytest.importorskip("peft", reason="peft is not installed (extra `lora`)")
SETTINGS = {
    "benchmarks": "pocket_arc", "problems": 4, "test_problems": 4, "chunk": 4, "checkpoint_steps": 1, "k": 2,
    "epochs": 2, "batch": 4, "lora_rank": 4,
}  # fmt: skip
LORA = configure({"benchmarks": "pocket_arc", "lora_rank": 4, "learning_rate": 1e-2})


@pytest.mark.parametrize("shape", ["llama, tied", "gpt2", "gpt-neox"])
def test_the_adapters_gradient_is_that_of_one_sequence_at_a_time_and_nothing_else_has_one(shape):
    model, examples = make_model(shape), make_examples()
    adapters.attach(model, LORA)
    disable_dropout(model)
    loss, _ = plain_orpo(model, examples, 0.7, "response")
    loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert expected and all(".lora_" in name for name in expected)
    model.zero_grad()
    metrics = train_step(model, examples, lam=0.7, max_tokens=60)
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in expected)
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-5)


def test_the_merged_model_and_peft_s_own_reading_of_the_adapter_say_the_same(tmp_path):
    model, tokenizer = load("pocket:student-neox")
    state = training.prepare(model, tokenizer, LORA)
    frozen = {name: p.clone() for name, p in model.named_parameters() if ".lora_" not in name}
    for _ in range(3):
        training.take_step(state, make_examples(), 1e-2, LORA.lam, LORA)
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)
    training.save_student(state, tmp_path / "student")
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        expected = model.eval()(ids).logits
        merged = load(str(tmp_path / "student"))[0]
        theirs = peft.PeftModel.from_pretrained(load("pocket:student-neox")[0], tmp_path / "adapter").eval()
        assert not torch.allclose(expected, load("pocket:student-neox")[0](ids).logits, atol=1e-2)
        for found in (merged(ids).logits, theirs(ids).logits):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert [type(m) for m in merged.modules()] == [type(m) for m in load("pocket:student-neox")[0].modules()]


def test_a_killed_run_resumes_from_its_adapters_to_the_same_bytes(tmp_path):
    whole, killed = (tmp_path / name for name in ("whole", "killed"))
    for folder in (whole, killed):
        distill.prepare(folder, recipe("pocket-quick", SETTINGS))
    assert distill.run(whole) == "done"
    child = distilling(killed)
    wait_for(child, lambda: len(list(runs.rows(killed / "metrics.jsonl"))) >= 2, killed)
    child.kill()
    end(child)
    (checkpoint,) = [path for path in killed.glob("checkpoints/*") if path.suffix != ".new"]
    assert not (checkpoint / "model.safetensors").exists() and (checkpoint / adapters.FILE).exists()
    assert distill.run(killed) == "done"
    for file in ("scores.jsonl", "answers/epoch-2.jsonl", "student/model.safetensors", f"adapter/{adapters.FILE}"):
        assert (whole / file).read_bytes() == (killed / file).read_bytes(), file


def test_without_peft_and_with_shard_it_is_refused_before_anything_is_sampled(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(LabError, match="pip install peft"):
        distill.prepare(tmp_path / "run", recipe("pocket-quick", SETTINGS))
    assert not (tmp_path / "run").exists()
    with pytest.raises(LabError, match="without lora_rank"):
        recipe("pocket-quick", {**SETTINGS, "fsdp": True})
