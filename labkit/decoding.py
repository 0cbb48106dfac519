"""Text from a model in this process: continuous batching where the model allows it, plain `generate` where not.

    said = decode(model, [Job(prompt_ids, ("seed/0", "seed/1"))], Settings(0.8), ends=[tokenizer.eos_token_id])

Whether a model allows it is tried, not assumed: two short sequences must get the logits of the model's own code.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from labkit import attention, batching, kv
from labkit.choosing import Job, Said, Settings, choose, uniforms
from labkit.linear import onednn_linears

_SMALL = 10_000_000  # parameters; below that the interpreter, not the processor, is what takes the time
_exact: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def decode(
    model: PreTrainedModel,
    jobs: Sequence[Job],
    settings: Settings,
    ends: Sequence[int],
    suppressed: Sequence[int] = (),
    batch: int | None = None,
    kv_tokens: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[list[Said]]:
    """What `model` says: per job, per address, in order; the same for the same call.

    `ends`: tokens that end a draw; `suppressed`: tokens never chosen; `batch`: draws running at a time; `kv_tokens`:
    budget of stored keys and values, raised to one sequence of full length where it is less. `progress` is called
    with the number of draws finished since its last call. The model comes back as it was, mode and attention.
    """
    batch = batch or sensible_batch(model)
    if model not in _exact:
        _exact[model] = batches_exactly(model)
        if not _exact[model]:
            warnings.warn(
                f"{type(model).__name__} cannot be batched here: its prompts are sampled one by one", stacklevel=2
            )
    if not _exact[model]:
        with _quiet(model):
            return [_plainly(model, job, settings, ends, suppressed, batch, progress) for job in jobs]
    with _engine(model, batch):
        kv_tokens = kv_tokens or sensible_kv_tokens(model)
        return batching.run(model, jobs, settings, ends, suppressed, batch, kv_tokens, progress)


@contextmanager
def _quiet(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode without gradients; one thread for small models, which lose by sharing their work."""
    training, threads = model.training, torch.get_num_threads()
    small = model.device.type == "cpu" and model.num_parameters() < _SMALL
    model.eval()
    torch.set_num_threads(1 if small else threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)
        model.train(training)


@contextmanager
def _engine(model: PreTrainedModel, rows: int) -> Iterator[None]:
    """Within the block the model takes `labkit_step` arguments, about `rows` of them at a time."""
    own = model.config._attn_implementation
    model.set_attn_implementation(attention.NAME)
    try:
        with _quiet(model), onednn_linears(model, rows):
            yield
    finally:
        model.set_attn_implementation(own)


def batches_exactly(model: PreTrainedModel) -> bool:
    """Whether the batched engine gives the logits that the model's own code gives, up to rounding."""
    size = model.config.get_text_config().vocab_size
    long, short = ([(step * i + 3) % size for i in range(n)] for step, n in ((7, 40), (5, 9)))
    try:
        with _engine(model, len([long, short])):
            batched = _batched_logits(model, [short, long])
    except Exception:  # a model that does not know the attention interface may fail in any way: it is not for us
        return False
    with _quiet(model):
        plain = torch.stack(
            [model(torch.tensor([ids], device=model.device)).logits[0, -3:] for ids in (short, long)], 1
        )
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.1
    return bool((batched - plain).abs().max() <= tolerance * plain.std())


def _batched_logits(model: PreTrainedModel, sequences: list[list[int]]) -> Tensor:
    """Logits at the last three tokens of each sequence, (3, sequences, vocabulary), the last two tokens one by one."""
    own, shared = kv.Pool(), kv.Pool()
    prompts = [ids[:-2] for ids in sequences]
    blocks = [shared.take(-(-len(ids) // kv.BLOCK)) for ids in prompts]
    logits = [attention.prefill(model, shared, prompts, blocks)]
    table = own.take(len(prompts))[:, None]
    for age in range(2):
        ages = np.full(len(prompts), age)
        lengths = np.array([len(ids) for ids in prompts])
        step = attention.Decode(
            own, shared, table, ages, np.arange(len(prompts)), attention.block_table(blocks), lengths, model.device
        )
        tokens = np.array([ids[len(ids) - 2 + age] for ids in sequences])
        logits.append(attention.advance(model, tokens, step))
    return torch.stack(logits)


class _Chooser(LogitsProcessor):
    """Lets `generate` take our choice of each token: all others are ruled out."""

    def __init__(self, chances: np.ndarray, settings: Settings, suppressed: Sequence[int]) -> None:
        self.chances, self.settings, self.suppressed = chances, settings, list(suppressed)
        self.logprobs: list[np.ndarray] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores[:, self.suppressed] = -torch.inf
        tokens, logprobs = choose(scores, self.chances[:, len(self.logprobs)], self.settings)
        self.logprobs.append(logprobs)
        chosen = torch.from_numpy(tokens).to(scores.device)[:, None]
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)


def _plainly(
    model: PreTrainedModel,
    job: Job,
    settings: Settings,
    ends: Sequence[int],
    suppressed: Sequence[int],
    batch: int,
    progress: Callable[[int], None] | None,
) -> list[Said]:
    """The draws of one prompt by `generate`, at most `batch` at a time; all of one length, so nothing is padded."""
    said = []
    for start in range(0, len(job.seeds), batch):
        seeds = job.seeds[start : start + batch]
        chooser = _Chooser(np.stack([uniforms(seed, settings.max_new_tokens) for seed in seeds]), settings, suppressed)
        ids = torch.tensor([list(job.ids)] * len(seeds), device=model.device)
        plain = GenerationConfig(
            do_sample=False,
            max_new_tokens=settings.max_new_tokens,
            eos_token_id=sorted(set(ends)),
            pad_token_id=min(ends),
        )
        rows = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=plain,
            logits_processor=LogitsProcessorList([chooser]),
        )[:, ids.shape[1] :].tolist()
        said += [_cut(row, logprobs, ends) for row, logprobs in zip(rows, np.stack(chooser.logprobs, 1), strict=True)]
        if progress is not None:
            progress(len(seeds))
    return said


def _cut(tokens: list[int], logprobs: np.ndarray, ends: Sequence[int]) -> Said:
    count = next((i + 1 for i, token in enumerate(tokens) if token in ends), len(tokens))
    return Said(tokens[:count], tokens[count - 1] in ends, float(logprobs[:count].mean()))


def sensible_batch(model: PreTrainedModel) -> int:
    """Draws at a time: more for small models, whose steps cost the same for many."""
    return 1024 if model.num_parameters() < _SMALL else 128


def sensible_kv_tokens(model: PreTrainedModel) -> int:
    """Tokens whose keys and values fill 1.5 GiB, or a quarter of the memory of the model's GPU."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
    room = 3 << 29
    if model.device.type == "cuda":
        room = torch.cuda.get_device_properties(model.device).total_memory // 4
    return max(room // token, 1024)
