"""InternLM2 folders are Llamas: the original's logits, words and ends, in little memory, without remote code."""

import ctypes
import gc
import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import native_internlm2 as native
import psutil
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from labkit import conversion, internlm2, models, spm
from labkit.generation import Request, Settings, TransformersGenerator, prompt_ids, render
from labkit.records import LabError

GOLDEN = ROOT.parent / "shared" / "internlm2-tiny-golden"
DYNAMIC = {"type": "dynamic", "factor": 2.0}
EXACT = 5e-5  # a wrong epsilon alone differs by 2e-4


def _words(size=native.SMALL["vocab_size"]):
    """A SentencePiece file as InternLM2's: special pieces, bytes, words, and the six chat marks as its last pieces."""
    letters = sorted({c for text in ("Think step by step. Answer: yes no 0123456789",) for c in text.replace(" ", "▁")})
    rows = [("<unk>", spm.UNKNOWN), ("<s>", spm.CONTROL), ("</s>", spm.CONTROL)]
    rows += [(f"<0x{byte:02X}>", spm.BYTE) for byte in range(256)] + [(letter, spm.NORMAL) for letter in letters]
    rows += [(f"[FILLER_{i}]", spm.UNUSED) for i in range(size - 6 - len(rows))]
    rows += [(f"[UNUSED_TOKEN_{i}]", spm.USER_DEFINED) for i in range(141, 147)]
    return spm.dump(
        spm.Pieces(tuple(spm.Piece(t, -float(i), kind) for i, (t, kind) in enumerate(rows)), b"", False, False)
    )


def _folder(path, shards=1, seed=0, **changes):
    """(folder, config, tensors) of a small random InternLM2 with its words."""
    config = {**native.SMALL, **changes}
    tensors = native.weights(config, seed)
    native.write(path, config, tensors, shards)
    (path / "tokenizer.model").write_bytes(_words(config["vocab_size"]))
    return path, config, tensors


@torch.no_grad()
def _logits(model, ids):
    return model(torch.as_tensor(ids).view(1, -1)).logits[0]


@pytest.fixture
def golden():
    if not GOLDEN.is_dir():
        pytest.skip("the original's logits are not beside the project (../shared/internlm2-tiny-golden)")
    return GOLDEN, load_file(GOLDEN / "expected_logits.safetensors")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_logits_and_greedy_tokens_are_those_of_the_original(golden, attention):
    folder, expected = golden
    model = internlm2.load(folder)
    model.set_attn_implementation(attention)
    for i in range(3):
        assert torch.allclose(_logits(model, expected[f"input_ids.{i}"]), expected[f"logits.{i}"], rtol=0, atol=EXACT)
    said = json.loads((folder / "expected_greedy.json").read_text())["greedy_new_ids"]
    prompt = expected["input_ids.1"].view(1, -1)
    assert model.generate(prompt, max_new_tokens=12, do_sample=False)[0, prompt.shape[1] :].tolist() == said


def test_the_forward_pass_written_down_here_is_the_originals_too(golden):
    folder, expected = golden
    config, tensors = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    for i in range(3):
        mine = native.logits(config, tensors, expected[f"input_ids.{i}"].flatten())
        assert torch.allclose(mine, expected[f"logits.{i}"], rtol=0, atol=EXACT)


@pytest.mark.parametrize(
    "scaling", [None, DYNAMIC, {"type": "linear", "factor": 2.0}], ids=["none", "dynamic", "linear"]
)
def test_logits_are_right_below_at_and_above_the_trained_length_in_any_order(tmp_path, scaling):
    folder, config, tensors = _folder(tmp_path / "m", shards=3, rope_scaling=scaling)
    model, _ = models.load(str(folder), device="cpu")
    for length in (20, 120, 60, 48, 49, 20):  # trained on 48
        ids = torch.arange(length) * 7 % 300
        assert torch.allclose(_logits(model, ids), native.logits(config, tensors, ids), rtol=0, atol=EXACT), length
    if scaling == DYNAMIC:
        ignored = native.logits({**config, "rope_scaling": None}, tensors, torch.arange(120))
        assert (ignored - native.logits(config, tensors, torch.arange(120))).abs().max() > 0.1


def test_the_converted_folder_is_a_plain_llama_with_the_same_logits_and_words(tmp_path):
    folder, config, tensors = _folder(tmp_path / "m", shards=2, rope_scaling=DYNAMIC)
    (folder / "LICENSE.txt").write_text("terms")
    assert conversion.convert(folder, tmp_path / "new" / "llama")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "llama")
    assert plain.config.model_type == "llama" and plain.dtype == torch.float32
    for length in (30, 90):
        ids = torch.arange(length) * 11 % 300
        assert torch.allclose(_logits(plain, ids), native.logits(config, tensors, ids), rtol=0, atol=EXACT)
    _, words = models.load(str(folder), device="cpu")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "new" / "llama")
    assert prompt_ids(theirs, "Is it so?\n  Answer: 12") == prompt_ids(words, "Is it so?\n  Answer: 12")
    assert plain.generation_config.eos_token_id == [2, 318] and theirs.eos_token_id == 318
    names = {path.name for path in (tmp_path / "new" / "llama").iterdir()}
    assert {"model-00002-of-00002.safetensors", "model.safetensors.index.json", "LICENSE.txt"} <= names
    assert not any("auto_map" in (tmp_path / "new" / "llama" / name).read_text() for name in names if "config" in name)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["llama"]


def test_a_trained_internlm2_is_saved_and_read_again_as_a_llama(tmp_path):
    folder, *_ = _folder(tmp_path / "m")
    model, words = models.load(str(folder), device="cpu")
    model(torch.arange(9).view(1, -1), labels=torch.arange(9).view(1, -1)).loss.backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())
    models.save(model, words, tmp_path / "student")
    again, same = models.load(str(tmp_path / "student"), device="cpu")
    assert torch.equal(_logits(again, range(30)), _logits(model, range(30)))
    assert render(same, "Why?") == render(words, "Why?") and same.eos_token == "<|im_end|>"
    assert again.generation_config.eos_token_id == [2, 318]


# --- words -----------------------------------------------------------------------------------------------------------


def test_the_chat_marks_are_one_token_each_both_ways_and_cannot_be_faked(tmp_path):
    folder, *_ = _folder(tmp_path / "m")
    words = models.load_tokenizer(str(folder))
    start, end = 319, 318
    assert words.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]) == [start, end]
    ids = prompt_ids(words, "yes<|im_end|>no")
    assert ids[:2] == [1, start] and ids.count(start) == 2 and ids.count(end) == 1 and 1 not in ids[1:]
    assert words.decode(ids) == ("<s><|im_start|>user\nyes< |im_end|>no<|im_end|>\n<|im_start|>assistant\n")
    assert (
        words.decode([*words("Answer: 7", add_special_tokens=False)["input_ids"], end], skip_special_tokens=True)
        == "Answer: 7"
    )
    assert words("yes")["input_ids"][0] == 1


def test_the_real_size_puts_the_marks_where_the_checkpoints_have_them(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(native.SMALL))
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "tokenizer.model").write_bytes(_words(92544))
    words = models.load_tokenizer(str(tmp_path))
    assert len(words) == 92544
    assert words("<|im_start|>x<|im_end|>", add_special_tokens=False)["input_ids"][::2] == [92543, 92542]


@pytest.mark.parametrize("end", [318, 2], ids=["im_end", "</s>"])
def test_generation_stops_at_either_end_token(tmp_path, end):
    folder, config, tensors = _folder(tmp_path / "m")
    with torch.no_grad():  # a model that says the end token after everything: the last norm lets one direction through
        tensors["model.norm.weight"].zero_()[0] = 1
        tensors["output.weight"].zero_()
        tensors["output.weight"][end, 0], tensors["output.weight"][end + 1 if end == 2 else 5, 0] = 9, -9
        tensors["model.tok_embeddings.weight"][:, 0] = 50
    native.write(folder, config, tensors)
    generator = TransformersGenerator(*models.load(str(folder), device="cpu"), "m")
    [[said]] = generator.generate([Request("x", "yes?", ("0",))], Settings(0.0, max_new_tokens=5))
    assert (said.text, said.finish, said.tokens) == ("", "stop", 1)


def test_what_the_folder_says_of_its_tokens_and_template_counts(tmp_path):
    folder, *_ = _folder(tmp_path / "m")
    added = {"317": {"content": "<|tool|>", "special": True}}
    settings = {
        "auto_map": {"AutoTokenizer": ["x.Y", None]},
        "added_tokens_decoder": added,
        "chat_template": "{{ 'hi' }}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    words = models.load_tokenizer(str(folder))
    assert render(words, "Why?") == "hi" and words.convert_tokens_to_ids("<|tool|>") == 317
    (folder / "tokenizer_config.json").write_text("{}")  # a base model: no chat, and texts end in </s>
    base = models.load_tokenizer(str(folder))
    assert base.chat_template is None and base.eos_token == "</s>"
    assert render(base, "Why?").startswith("<s>Question: Why?")


# --- what is refused -------------------------------------------------------------------------------------------------

REFUSED = {
    "biased": ({"bias": True}, "bias"),
    "other activation": ({"hidden_act": "gelu"}, "gelu"),
    "reward model": ({"architectures": ["InternLM2ForRewardModel"]}, "RewardModel"),
    "unknown rope": ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "yarn"),
    "quantised": ({"quantization_config": {"bits": 4}}, "quantised"),
    "other shape": ({"intermediate_size": 100}, "feed_forward"),
    "more layers than weights": ({"num_hidden_layers": 3}, "layers.2"),
    "fewer layers than weights": ({"num_hidden_layers": 1}, "layers.1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_compute_something_else_is_refused_in_one_line(tmp_path, case):
    changes, said = REFUSED[case]
    folder, config, _ = _folder(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    for attempt in (
        lambda: models.verify(str(folder)),
        lambda: models.load(str(folder)),
        lambda: conversion.convert(folder, tmp_path / "llama"),
    ):
        with pytest.raises(LabError, match=said) as error:
            attempt()
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_biases_and_adapters_among_the_weights_are_refused(tmp_path):
    config = native.SMALL
    tensors = native.weights(config)
    native.write(tmp_path / "m", config, {**tensors, "model.layers.0.attention.wqkv.bias": torch.zeros(12)})
    with pytest.raises(LabError, match=r"wqkv\.bias is not known"):
        internlm2.examine(tmp_path / "m")


def test_a_missing_shard_and_a_damaged_one_are_named(tmp_path):
    folder, *_ = _folder(tmp_path / "m", shards=3)
    second = folder / "model-00002-of-00003.safetensors"
    second.write_bytes(second.read_bytes()[:-50])
    with pytest.raises(LabError, match=r"00002-of-00003\.safetensors is damaged"):
        models.verify(str(folder))
    second.unlink()
    with pytest.raises(LabError, match=r"00002-of-00003\.safetensors is not there"):
        models.load(str(folder))


def test_the_command_never_writes_over_anything(tmp_path, command):
    folder, *_ = _folder(tmp_path / "m")
    (tmp_path / "mine").mkdir()

    def convert(target):
        return command("convert-internlm2", folder, target)

    code, _, err = convert(tmp_path / "mine")
    assert code == 2 and err.startswith("labkit: ") and "mine exists" in err and len(err.splitlines()) == 1
    assert not list((tmp_path / "mine").iterdir())
    code, out, _ = convert(tmp_path / "llama")
    assert not code and "plain Llama" in out and (tmp_path / "llama" / "model.safetensors").is_file()


# --- memory ----------------------------------------------------------------------------------------------------------


def _peak(work, *arguments):
    """Bytes of resident memory at the highest, above where it began, while `work(*arguments)` runs."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # or memory freed before would be used again, and not be counted
    process = psutil.Process()
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    before = process.memory_info().rss
    kept = work(*arguments)
    high = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    del kept
    return int(high.split()[1]) * 1024 - before


def _at_once(folder):
    """What loading shard by shard guards against: everything read, then everything converted."""
    whole = load_file(folder / "model.safetensors")
    return whole, {key: weight.float() for key, weight in whole.items()}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured through Linux's /proc")
def test_loading_takes_no_more_than_a_fifth_above_the_models_own_size(tmp_path):
    shape = {"hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 5, "vocab_size": 6000}
    config = {**native.SMALL, **shape, "num_attention_heads": 8, "num_key_value_heads": 4, "rope_scaling": DYNAMIC}
    native.write(tmp_path / "m", config, native.weights(config, dtype=torch.bfloat16))
    (tmp_path / "m" / "tokenizer.model").write_bytes(_words(6000))
    size = 4 * sum(weight.numel() for weight in load_file(tmp_path / "m" / "model.safetensors").values())
    assert size > 300e6
    # in a process of its own: this one has pages of other tests that the kernel may take back meanwhile
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        used = fresh.submit(_peak, internlm2.load, tmp_path / "m").result()
        naive = fresh.submit(_peak, _at_once, tmp_path / "m").result()
        converting = fresh.submit(_peak, conversion.convert, tmp_path / "m", tmp_path / "llama").result()
    assert 0.9 * size < used < 1.2 * size
    assert naive > 1.4 * size
    assert converting < 1.2 * size
    print(f"load {used / size:.3f}, at once {naive / size:.3f}, conversion {converting / size:.3f} of {size} bytes")


def test_a_hub_folder_is_found_in_the_cache_and_needs_no_remote_code(tmp_path):
    cached = tmp_path / "hub" / "models--internlm--tiny"
    folder, *_ = _folder(cached / "snapshots" / "abc", rope_scaling=DYNAMIC)
    (folder / "tokenization_internlm2.py").write_text("raise SystemExit('remote code was run')")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    code = (
        "from labkit import models; model, words = models.load('internlm/tiny', device='cpu');"
        "print(model.config.model_type, models.context_length('internlm/tiny'), words.eos_token)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "", "PYTHONPATH": str(ROOT), "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["llama", "48", "<|im_end|>"], done.stderr
