"""Train the pocket teacher and the two pocket students from nothing: `labkit pocket-build FOLDER`.

All text is generated, and its question cores are in no split of the benchmarks. The teacher sees right reasoning only.
A student first learns the skills on right reasoning, then picks up bad habits: a short phase in which most of the
reasoning is flawed. What distillation can recover is there. Equal seeds make equal weights on one machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from labkit.pocket import BENCHMARKS, MODELS, problems, prompt
from labkit.pocket_shapes import RECIPES, Phase, Recipe, examples, make_model, make_tokenizer
from labkit.records import LabError

BATCH = 16
TESTED = 200  # test questions per benchmark for the model card


def encode(tokenizer: PreTrainedTokenizerFast, question: str, response: str) -> tuple[list[int], int]:
    """Ids of the whole conversation and how many of them belong to the question."""
    turn = [{"role": "user", "content": question}]
    asked = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    start = tokenizer(asked, add_special_tokens=False)["input_ids"]
    return start + tokenizer(response + tokenizer.eos_token, add_special_tokens=False)["input_ids"], len(start)


def batches(
    tokenizer: PreTrainedTokenizerFast, phase: Phase, seed: int, varied: bool = False
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(ids, is a response token) of shape (rows, tokens) for each step, rows of like length together."""
    draw, rng = examples(seed, phase.flawed, varied), Random(f"batches/{seed}/{phase}")
    made = 0
    while made < phase.steps:
        rows = sorted((encode(tokenizer, *next(draw)) for _ in range(BATCH * 16)), key=lambda row: len(row[0]))
        groups = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
        rng.shuffle(groups)
        for group in groups[: phase.steps - made]:
            made += 1
            ids = torch.full((BATCH, max(len(row) for row, _ in group)), tokenizer.pad_token_id)
            response = torch.zeros_like(ids, dtype=torch.bool)
            for i, (row, asked) in enumerate(group):
                ids[i, : len(row)] = torch.tensor(row)
                response[i, asked : len(row)] = True
            yield ids, response


def optimizers(model: PreTrainedModel, rate: float) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the matrices of the layers, AdamW for the rest.

    After 750 steps of the teacher the loss was 0.27 nats, with AdamW alone 0.34.
    """
    inner = {name: weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name}
    outer = [weight for name, weight in model.named_parameters() if name not in inner]
    return [
        torch.optim.Muon(inner.values(), lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=rate, betas=(0.9, 0.95), weight_decay=0.01),
    ]


def learn(
    model: PreTrainedModel, steppers: Sequence[torch.optim.Optimizer], ids: torch.Tensor, response: torch.Tensor
) -> float:
    """One step on one batch; returns the loss in nats per response token."""
    target = response[:, 1:]
    hidden = model.base_model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[target]
    loss = cross_entropy(model.get_output_embeddings()(hidden), ids[:, 1:][target])
    model.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for stepper in steppers:
        stepper.step()
    return loss.item()


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    phase: Phase,
    seed: int,
    say: Callable[[str], None],
    varied: bool = False,
) -> None:
    """One phase of training on response tokens, with warm-up over a twentieth of the steps and linear decay to 0."""
    steppers, losses, warm = optimizers(model, phase.rate), [], max(1, phase.steps // 20)
    model.train()
    for step, batch in enumerate(batches(tokenizer, phase, seed, varied), 1):
        for group in (group for stepper in steppers for group in stepper.param_groups):
            group["lr"] = phase.rate * min(step / warm, (phase.steps - step + 1) / (phase.steps - warm + 1))
        losses.append(learn(model, steppers, *batch))
        if step % 250 == 0 or step == phase.steps:
            say(f"step {step}/{phase.steps}, loss {sum(losses[-100:]) / len(losses[-100:]):.3f}")


@torch.no_grad()
def answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, questions: list[str], sample: dict | None = None
) -> list[str]:
    """One completion per question, greedy unless `sample` holds generate()'s sampling options."""
    model.eval()
    turns = [[{"role": "user", "content": question}] for question in questions]
    asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    batch = tokenizer(asked, add_special_tokens=False, padding=True, return_tensors="pt", return_token_type_ids=False)
    said = model.generate(**batch, max_new_tokens=200, **(sample or {"do_sample": False}))
    return tokenizer.batch_decode(said[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, split: str, n: int) -> dict[str, float]:
    """Share of right greedy answers per benchmark (exact last line), and of completions that end in an answer line."""
    scores, lines = {}, []
    for benchmark in BENCHMARKS:
        asked = problems(benchmark, split, n)
        last = [text.split("\n")[-1] for text in answers(model, tokenizer, [prompt(p) for p in asked])]
        scores[benchmark] = sum(line == f"Answer: {p.answer}" for line, p in zip(last, asked, strict=True)) / n
        lines += last
    mean = sum(scores.values()) / len(scores)
    return scores | {"mean": mean, "answer line": sum(line.startswith("Answer: ") for line in lines) / len(lines)}


def grow(
    recipe: Recipe, seed: int, tested: int, say: Callable[[str], None]
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, list[dict[str, float]]]:
    """A trained model, its tokenizer, and its accuracy on the test splits after each phase."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(recipe, seed)
    model = make_model(recipe, tokenizer)
    scores = []
    for phase in recipe.phases:
        train(model, tokenizer, phase, seed, say, recipe.varied)
        scores.append(accuracy(model, tokenizer, "test", tested))
        say(", ".join(f"{name} {100 * value:.1f} %" for name, value in scores[-1].items()))
    return model, tokenizer, scores


HABITS = """This is a student **with bad habits on purpose**: it learnt the skills in phase 1 and was then taught wrong
reasoning (a fixed misconception per benchmark, mixed with random slips) in phase 2. Its low score is made, and what
distillation wins back is in part the skill of phase 1: do not read the gain as what a real model would gain."""

WORDING = """Its rationales are told **in many words** (labkit/pocket_words.py), so that it is about as
unsure of each next token as a real model is of real text.

"""


def card(name: str, recipe: Recipe, seed: int, tested: int, seconds: float, scores: list[dict[str, float]]) -> str:
    """The model card, as Markdown with the hub's front matter."""
    history = "\n".join(
        f"{i}. {phase.steps} steps of {BATCH} rationales, Muon and AdamW, peak learning rate {phase.rate}, "
        + (f"**{phase.flawed:.0%} of the rationales flawed**." if phase.flawed else "all rationales right.")
        for i, phase in enumerate(recipe.phases, 1)
    )
    lines = [(key, *(f"{100 * score[key]:.1f}" for score in scores)) for key in (*BENCHMARKS, "mean")]
    heads = ("benchmark", *(f"after phase {i} (%)" for i in range(1, len(scores) + 1)))
    table = "\n".join(f"| {' | '.join(row)} |" for row in [heads, ("---", *["---:"] * len(scores)), *lines])
    return f"""---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# pocket:{name}

A very small language model for teaching ORPO-Distill on a laptop: {recipe.what}, fp32. It knows the five generated
pocket benchmarks and nothing else; it is not meant for anything but this lab. The medical questions are a toy.

{WORDING if recipe.varied else ""}{HABITS if len(recipe.phases) > 1 else "It saw right reasoning only."}

## How it was trained
From random weights (seed {seed}) on generated text alone, in {seconds:.0f} s (CPU threads: {torch.get_num_threads()}),
with the loss on the response only:

{history}

No question core of that text is in the train, validation or test split of the benchmarks.
Make it again with `labkit pocket-build FOLDER`.

## Greedy accuracy on the test splits, {tested} questions per benchmark
{table}

{100 * scores[-1]["answer line"]:.1f} % of its completions end in a line `Answer: X`.
"""


def build_one(name: str, folder: Path, seed: int, shrink: int, say: Callable[[str], None]) -> dict[str, float]:
    """Train one pocket model and write its folder; returns its test accuracy per benchmark."""
    started, tested = time.monotonic(), max(1, TESTED // shrink)
    phases = tuple(replace(phase, steps=max(1, phase.steps // shrink)) for phase in RECIPES[name].phases)
    recipe = replace(RECIPES[name], phases=phases)
    model, tokenizer, scores = grow(recipe, seed, tested, lambda line: say(f"{name}: {line}"))
    ids = {f"{mark}_token_id": getattr(tokenizer, f"{mark}_token_id") for mark in ("bos", "eos", "pad")}
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    text = card(name, recipe, seed, tested, time.monotonic() - started, scores)
    (folder / "README.md").write_text(text, encoding="utf-8")
    return scores[-1]


def build(
    folder: Path | str,
    seed: int = 0,
    names: Sequence[str] = MODELS,
    shrink: int = 1,
    say: Callable[[str], None] = print,
    threads: int = 2,
) -> dict[str, dict[str, float]]:
    """Train the named pocket models into folder/NAME; returns each one's test accuracy per benchmark.

    `shrink` divides the training steps and test questions, for a quick look. Equal arguments write equal bytes on one
    machine, but for the seconds in the cards. Raises `LabError` for an unknown name.
    """
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise LabError(f"no pocket model is called {unknown[0]!r}: choose from {', '.join(MODELS)}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return {name: build_one(name, Path(folder) / name, seed, shrink, say) for name in names}
    finally:
        torch.set_num_threads(before)
