"""The pocket models' shapes, tokenizers and chat templates, and the text they are pretrained on.

Ordinary transformers models, so that nothing in the pipeline knows they are small: a Llama teacher with one token per
word, and two students of other architectures and other tokenizers. pocket_models.py trains them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from labkit.pocket import BENCHMARKS, CLOSERS, OPENERS, cases, prompt, tell
from labkit.pocket_words import vary

CONTEXT = 512  # tokens
MIXTURE = (5, 2, 2, 2, 2)  # how often pretraining draws each of BENCHMARKS: arithmetic is learnt last
MARKS = ("<|begin|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>")
TURNS = (
    "{{ '<|begin|>' }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' + message['content'] + '<|end|>' }}{% else %}{{ '<|user|>' + message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class Phase:
    """Training steps at a peak learning rate; `flawed` is the share of rationales that are wrong."""

    steps: int
    rate: float
    flawed: float


@dataclass(frozen=True)
class Recipe:
    """How one pocket model is made."""

    what: str
    config: Callable[..., PreTrainedConfig]
    width: dict[str, int]
    tokens: int  # size of the vocabulary; 0 for one token per word
    marks: tuple[str, ...]  # what stands for each of MARKS in its template
    phases: tuple[Phase, ...]
    varied: bool = False  # told in the many words of pocket_words.py


RECIPES = {
    "teacher": Recipe(
        "Llama with a word-level tokenizer",
        LlamaConfig,
        {"hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 3},
        0,
        MARKS,
        (Phase(4500, 3e-3, 0.0),),
    ),
    "student-neox": Recipe(
        "GPT-NeoX with a byte-level BPE tokenizer",
        GPTNeoXConfig,
        {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 3},
        704,
        ("<|start|>", "<|question|>", "<|reply|>", "<|stop|>", "<|fill|>"),
        (Phase(3500, 3e-3, 0.0), Phase(300, 1.5e-3, 0.75)),
    ),
    "student-qwen": Recipe(
        "Qwen3 with a byte-level BPE tokenizer",
        Qwen3Config,
        {
            "hidden_size": 64,
            "intermediate_size": 176,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "num_hidden_layers": 3,
        },
        896,
        ("<s>", "[human]", "[machine]", "</s>", "<pad>"),
        (Phase(3500, 3e-3, 0.0), Phase(300, 1.5e-3, 0.75)),
    ),
}
RECIPES["teacher-varied"] = replace(RECIPES["teacher"], varied=True)
RECIPES["student-varied"] = replace(RECIPES["student-neox"], varied=True)


def examples(seed: int, flawed: float, varied: bool = False) -> Iterator[tuple[str, str]]:
    """(prompt, response) pairs to pretrain on, forever; `varied`: the same ones in many words."""
    rng, wording = Random(f"examples/{seed}/{flawed}"), Random(f"wording/{seed}/{flawed}")
    worlds = {benchmark: cases(benchmark, "pretrain", seed) for benchmark in BENCHMARKS}
    while True:
        case = next(worlds[rng.choices(BENCHMARKS, MIXTURE)[0]])
        told = case.arguments
        if rng.random() < flawed:
            body, answer = rng.choice(told.misconceptions if rng.random() < 0.6 else told.slips)
        else:
            body, answer = rng.choice(told.bodies), case.answer
        text = tell(rng.choice(OPENERS), body, rng.choice(CLOSERS), answer)
        yield prompt(case), vary(text, wording) if varied else text


def word_tokenizer(texts: list[str], marks: tuple[str, ...]) -> Tokenizer:
    """One token per word with its leading space, so that decoding gives the text back; unknown words become <unk>."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?[A-Za-z]+| ?\d+|\n| ?[^\sA-Za-z\d]|\s"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    numbers = [f" {n}" for n in range(101)]
    trainer = trainers.WordLevelTrainer(special_tokens=[*marks, "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(numbers + texts, trainer)
    return tokenizer


def byte_tokenizer(texts: list[str], marks: tuple[str, ...], size: int) -> Tokenizer:
    """Byte-level BPE: it can write any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(marks), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_tokenizer(recipe: Recipe, seed: int) -> PreTrainedTokenizerFast:
    """A recipe's tokenizer, trained on pretraining text, with its chat template."""
    draw = examples(seed, 0.3, recipe.varied)
    texts = ["\n".join(next(draw)) for _ in range(4_000 if recipe.tokens else 20_000)]
    word = not recipe.tokens
    made = word_tokenizer(texts, recipe.marks) if word else byte_tokenizer(texts, recipe.marks, recipe.tokens)
    begin, user, assistant, end, pad = recipe.marks
    template = TURNS
    for plain, own in zip(MARKS, recipe.marks, strict=True):
        template = template.replace(plain, own)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=begin,
        eos_token=end,
        pad_token=pad,
        unk_token="<unk>" if word else None,
        additional_special_tokens=[user, assistant],
        padding_side="left",
        model_max_length=CONTEXT,
        chat_template=template,
    )


def make_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A model of the recipe's shape with random weights (from torch's global seed)."""
    config = recipe.config(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.1,  # about 1/sqrt(width): the usual 0.02 is for wide models and learns to copy late here
        **recipe.width,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
