"""Stand-ins for the paper's models, so that its recipes run from end to end anywhere: `--stand-in`.

A stand-in student has the layers, heads, vocabulary, context, file layout, kind of tokenizer and chat template of the
model it stands for, at a width of 64 and with random weights. Random weights solve nothing, so the stand-in teacher is
a file of recorded traces, some right and some wrong, written from templates and gold answers; and whatever the student
babbles counts as a negative. Such a run shows that a student of this kind loads, samples, trains and is saved, on the
recipe's settings. It does not show that the 7B teacher samples, nor that anything fits a GPU; its scores mean nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from labkit import config as configuring
from labkit import distill, internlm2, internlm2_words, pocket, spm
from labkit.config import RunConfig
from labkit.prompts import INSTRUCTIONS
from labkit.records import LabError, Problem

WIDTH = 64
TINYLLAMA = "TinyLlama/TinyLlama-1.1B-Chat-v1.0"
INTERNLM = "internlm/internlm2_5-1_8b-chat"
SHAPES: dict[str, dict[str, Any]] = {  # their config.json, at full size
    TINYLLAMA: {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "hidden_act": "silu",
        "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
        "num_key_value_heads": 4, "vocab_size": 32000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "rope_scaling": None, "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    INTERNLM: {
        "architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "bias": False, "hidden_act": "silu",
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 16,
        "num_key_value_heads": 8, "vocab_size": 92544, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0, "rope_scaling": {"type": "dynamic", "factor": 2.0}, "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
        "auto_map": {"AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM"},
    },
}  # fmt: skip
ZEPHYR = (  # what TinyLlama's template writes: a turn ends in </s>, and the marks are plain text
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + eos_token + '\n' }}"
    "{% elif message['role'] == 'system' %}{{ '<|system|>\n' + message['content'] + eos_token + '\n' }}"
    "{% else %}{{ '<|assistant|>\n' + message['content'] + eos_token + '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
LOOK_ALIKES = {
    "medqa_usmle_4opt": "pocket_medqa",
    "arc_challenge": "pocket_arc",
    "strategyqa": "pocket_strategyqa",
    "openbookqa": "pocket_openbookqa",
    "gsm8k": "pocket_gsm8k",
}
SMALL = {  # a few rows and short answers; the rest of the recipe stays
    "problems": 2, "test_problems": 2, "k": 2, "max_draws": 24, "max_new_tokens": 8, "epochs": 2, "batch": 8,
    "max_tokens": 1024, "chunk": 16, "unparsed_negatives": True, "dtype": "float32",
}  # fmt: skip
RECORDED = 12  # traces of each side per question: enough for K = 12


def settings(recipe: str, changes: dict[str, Any]) -> RunConfig:
    """A recipe cut down to a few rows, with `changes` on top; the generated benchmarks where no `data` is given."""
    asked = configuring.recipe(recipe).benchmarks
    rows = {} if changes.get("data") else {"benchmarks": ",".join(LOOK_ALIKES.get(name, name) for name in asked)}
    return configuring.recipe(recipe, {**SMALL, **rows, **changes})


def prepare(folder: Path, config: RunConfig) -> RunConfig:
    """`config` with its student and teacher replaced by stand-ins in `folder`, which are made where they are not there.

    Raises `LabError` for a student that has no stand-in.
    """
    if config.student not in SHAPES:
        raise LabError(f"--stand-in: there is none for the student {config.student}: only for {', '.join(SHAPES)}")
    student, traces = folder / "student", folder / "teacher.jsonl"
    if not folder.exists():
        asked = distill.questions(config.model_copy(update={"method": "orpo"}))
        problems = [problem for problem in asked if problem.split == "train"]
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".stand-in-", dir=folder.parent) as scratch:
            new = Path(scratch) / "new"
            lines = list(recording(problems, config))
            write_model(config.student, new / "student", [line["text"] for line in lines])
            (new / "teacher.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            new.rename(folder)
    return config.model_copy(update={"student": str(student), "teacher": f"traces:{traces}"})


# --- the teacher -----------------------------------------------------------------------------------------------------


def recording(problems: Sequence[Problem], config: RunConfig) -> Iterator[dict[str, Any]]:
    """Lines of a recording: right and wrong traces in turn, all of different wording."""
    for problem in problems:
        rng = random.Random(f"{config.seed}/stand-in/{problem.id}")
        benchmark, _, row = problem.id.partition("/train/")
        common = {"benchmark": benchmark, "row": int(row), "question": problem.question, "finish_reason": "stop"}
        common |= {"model": f"stand-in for {config.teacher}"}
        for sample, text in enumerate(_told(problem, rng)):
            yield {**common, "sample": sample, "text": text, "tokens": len(text.split())}


def _told(problem: Problem, rng: random.Random) -> list[str]:
    pairs = [(opener, closer) for opener in pocket.OPENERS for closer in pocket.CLOSERS]
    rng.shuffle(pairs)
    words = problem.question.split()
    texts = []
    for n, (opener, closer) in enumerate(pairs[: 2 * RECORDED]):
        start = rng.randrange(max(1, len(words) - 5))
        body = f"The question says: {' '.join(words[start : start + 6])}."
        texts.append(pocket.tell(opener, body, closer, problem.answer if n % 2 == 0 else _wrong(problem, rng)))
    return texts


def _wrong(problem: Problem, rng: random.Random) -> str:
    if problem.choices:
        return rng.choice([c for c in problem.labels or problem.choices if c != problem.answer])
    if problem.kind == "boolean":
        return "no" if problem.answer == "yes" else "yes"
    return f"{float(problem.answer) + rng.randint(1, 9):g}" if problem.kind == "number" else "something else"


# --- the student -----------------------------------------------------------------------------------------------------


def write_model(name: str, folder: Path, texts: Sequence[str], width: int = WIDTH) -> None:
    """A random model of the named one's shape at a width of `width`, with a tokenizer trained on `texts`."""
    transformers.utils.logging.disable_progress_bar()
    full = SHAPES[name]
    narrow = full["hidden_size"] // width
    own = {**full, "hidden_size": width, "intermediate_size": full["intermediate_size"] // narrow}
    own["torch_dtype"] = "float32"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(own, indent=1) + "\n")
    internlm = own["model_type"] == "internlm2"
    pieces = vocabulary(texts, own["vocab_size"], internlm)
    (folder / "tokenizer.model").write_bytes(spm.dump(pieces))
    _write_internlm2(folder) if internlm else _write_tinyllama(folder, own, pieces)


def vocabulary(texts: Sequence[str], size: int, internlm: bool) -> spm.Pieces:
    """A SentencePiece model of `size` pieces: bytes, what BPE finds in `texts`, fillers, InternLM2's chat marks."""
    base = [("<unk>", spm.UNKNOWN), ("<s>", spm.CONTROL), ("</s>", spm.CONTROL)]
    base += [(f"<0x{byte:02X}>", spm.BYTE) for byte in range(256)]
    marks = [(f"[UNUSED_TOKEN_{n}]", spm.USER_DEFINED) for n in range(141, 147)] if internlm else []
    learnt = [(piece, spm.NORMAL) for piece in _learn(texts, min(1000, size - len(base) - len(marks)))]
    fillers = [(f"[FILLER_{n}]", spm.UNUSED) for n in range(size - len(base) - len(learnt) - len(marks))]
    rows = [*base, *learnt, *fillers, *marks]
    pieces = tuple(spm.Piece(text, -float(place), kind) for place, (text, kind) in enumerate(rows))
    return spm.Pieces(pieces, dummy_prefix=not internlm, collapse_spaces=False)


def _learn(texts: Sequence[str], size: int) -> list[str]:
    """Letters, then merges in the order in which BPE makes them."""
    learner = Tokenizer(BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(spm.SPACE, prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False)
    learner.train_from_iterator([*texts, *INSTRUCTIONS.values()], trainer)
    return sorted(learner.get_vocab(), key=learner.get_vocab().get)


def _write_tinyllama(folder: Path, own: dict[str, Any], pieces: spm.Pieces) -> None:
    words = spm.fast(pieces)
    words.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    words.save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, "add_eos_token": False}
    said |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    said["model_max_length"] = own["max_position_embeddings"]
    (folder / "tokenizer_config.json").write_text(json.dumps({**said, "chat_template": ZEPHYR}))
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig.from_dict(own))
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model.save_pretrained(folder)


def _write_internlm2(folder: Path) -> None:
    """Native tensors in two files with their index and settings that point to remote code, as on the hub."""
    code = {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]}
    said = {"tokenizer_class": "InternLM2Tokenizer", "auto_map": code, "chat_template": internlm2_words.CHAT}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    ends = {"bos_token_id": 1, "eos_token_id": [2, 92542], "pad_token_id": 2}
    (folder / "generation_config.json").write_text(json.dumps(ends))
    shapes = internlm2.shapes(internlm2.config_of(folder))
    draw = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=draw) * 0.02 if len(shape) == 2 else torch.ones(shape)
        for name, shape in shapes.items()
    }
    names, where = sorted(tensors), {}
    for n in range(2):
        file = f"model-{n + 1:05d}-of-00002.safetensors"
        part = names[n * len(names) // 2 : (n + 1) * len(names) // 2]
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
        where |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
