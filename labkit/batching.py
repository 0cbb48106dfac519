"""Continuous batching: many draws from many prompts, none waiting for another.

Every prompt is read once and shared by its draws. A finished draw leaves the batch at once, the next one enters; keys
and values are bounded by a budget of tokens. The random numbers of a draw come from its address alone, so that its
text does not depend on what else is in the batch, beyond the rounding of sums. Equal calls give equal results.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from labkit.attention import Decode, advance, block_table, prefill
from labkit.choosing import Job, Said, Settings, choose, uniforms
from labkit.kv import BLOCK, Ids, Pool

_PACK = 2048  # prompt tokens read in one forward pass
_LATE = 8  # new draws enter when an eighth of the batch is free: reading prompts one by one is slow


@dataclass
class _Prompt:
    """A prompt that has been read: its blocks, and the logits that first tokens are chosen from."""

    length: int
    blocks: Ids
    logits: Tensor
    unfinished: int  # draws, running or waiting


@dataclass
class _Draws:
    """The running draws, oldest first: one element of each array is one draw."""

    job: Ids
    draw: Ids
    home: Ids  # row of the run's stores
    count: Ids  # tokens chosen so far
    table: Ids  # (draws, blocks): own blocks in order, -1 where there are none yet

    def where(self, keep: np.ndarray) -> _Draws:
        return _Draws(*(array[keep] for array in vars(self).values()))

    def and_(self, more: _Draws) -> _Draws:
        return _Draws(*map(np.concatenate, zip(vars(self).values(), vars(more).values(), strict=True)))


@dataclass
class _Run:
    """Everything that one call of `decode` works on."""

    model: PreTrainedModel
    jobs: Sequence[Job]
    settings: Settings
    ends: Ids
    suppressed: list[int]
    batch: int
    budget: int  # blocks, own and shared together
    waiting: deque[tuple[int, int]]  # (job, draw)
    said: list[list[Said | None]]
    tokens: np.ndarray  # (homes, max_new_tokens)
    logprobs: np.ndarray  # (homes,): sums
    chances: np.ndarray  # (homes, max_new_tokens): uniform random numbers
    homes: list[int]  # free rows of the three stores
    draws: _Draws
    prompts: dict[int, _Prompt] = field(default_factory=dict)  # by job, in the order of reading
    own: Pool = field(default_factory=Pool)
    shared: Pool = field(default_factory=Pool)
    finished: int = 0

    def free_blocks(self) -> int:
        return self.budget - self.own.used - self.shared.used


def run(
    model: PreTrainedModel,
    jobs: Sequence[Job],
    settings: Settings,
    ends: Sequence[int],
    suppressed: Sequence[int],
    batch: int,
    kv_tokens: int,
    progress: Callable[[int], None] | None,
) -> list[list[Said]]:
    """What `model` says: per job, per address, in order. See `labkit.decoding.decode`, which is the way in."""
    new, n = settings.max_new_tokens, min(batch, sum(len(job.seeds) for job in jobs))
    longest = max((len(job.ids) for job in jobs), default=0)
    state = _Run(
        model=model,
        jobs=jobs,
        settings=settings,
        ends=np.array(sorted(set(ends)), np.int64),
        suppressed=list(suppressed),
        batch=n,
        budget=max(kv_tokens // BLOCK, _blocks(longest) + _blocks(new)),
        waiting=deque((j, d) for j, job in enumerate(jobs) for d in range(len(job.seeds))),
        said=[[None] * len(job.seeds) for job in jobs],
        tokens=np.zeros((n, new), np.int64),
        logprobs=np.zeros(n),
        chances=np.zeros((n, new)),
        homes=list(range(n)),
        draws=_Draws(*(np.zeros(0, np.int64) for _ in range(4)), np.zeros((0, _blocks(new)), np.int64)),
    )
    while state.waiting or len(state.draws.job):
        _admit(state)
        _step(state)
        if progress is not None and state.finished:
            progress(state.finished)
        state.finished = 0
    return state.said


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK)


def _admit(run: _Run) -> None:
    """Let waiting draws enter; their prompts are read, and their first tokens chosen."""
    running = len(run.draws.job)
    if not run.waiting or (running and len(run.homes) * _LATE < run.batch):
        return
    entering, unread, room = [], [], run.free_blocks() - running  # each running draw may soon need a block
    while run.waiting and len(entering) < len(run.homes):
        job, _ = run.waiting[0]
        fresh = job not in run.prompts and job not in unread
        cost = 1 + (_blocks(len(run.jobs[job].ids)) if fresh else 0)
        if cost > room and (running or entering):
            break
        room -= cost
        entering.append(run.waiting.popleft())
        unread += [job] if fresh else []
    for pack in _packs(run, unread):
        _read(run, pack)
    if entering:
        _enter(run, entering)


def _packs(run: _Run, unread: list[int]) -> list[list[int]]:
    """The jobs in packs of about `_PACK` tokens, similar lengths together."""
    unread = sorted(unread, key=lambda job: len(run.jobs[job].ids))
    pack = np.cumsum([len(run.jobs[job].ids) for job in unread]) // _PACK
    return [list(part) for part in np.split(unread, np.flatnonzero(np.diff(pack)) + 1)] if unread else []


def _read(run: _Run, pack: list[int]) -> None:
    """Store the keys and values of some prompts, and the logits after their last token."""
    blocks = [run.shared.take(_blocks(len(run.jobs[job].ids))) for job in pack]
    logits = prefill(run.model, run.shared, [run.jobs[job].ids for job in pack], blocks)
    for job, numbers, row in zip(pack, blocks, logits, strict=True):
        seeds = run.jobs[job].seeds
        run.prompts[job] = _Prompt(len(run.jobs[job].ids), numbers, row.clone(), len(seeds))


def _enter(run: _Run, entering: list[tuple[int, int]]) -> None:
    jobs, draws = (np.array(column, np.int64) for column in zip(*entering, strict=True))
    homes = np.array([run.homes.pop() for _ in entering], np.int64)
    if run.settings.temperature > 0:
        for home, (job, draw) in zip(homes, entering, strict=True):
            run.chances[home] = uniforms(run.jobs[job].seeds[draw], run.settings.max_new_tokens)
    run.logprobs[homes] = 0
    new = _Draws(jobs, draws, homes, np.zeros_like(homes), np.full((len(homes), run.draws.table.shape[1]), -1))
    logits = torch.stack([run.prompts[job].logits for job, _ in entering])
    run.draws = run.draws.and_(_chosen(run, new, logits))
    _leave(run)


def _chosen(run: _Run, draws: _Draws, logits: Tensor) -> _Draws:
    """Append one token to each of `draws`."""
    if run.suppressed:
        logits[:, run.suppressed] = -torch.inf
    tokens, logprobs = choose(logits, run.chances[draws.home, draws.count], run.settings)
    run.tokens[draws.home, draws.count] = tokens
    run.logprobs[draws.home] += logprobs
    draws.count = draws.count + 1
    return draws


def _step(run: _Run) -> None:
    """One more token for every running draw."""
    if not len(run.draws.job):
        return
    _reserve(run)
    draws, prompts = run.draws, run.prompts.values()
    order = {job: i for i, job in enumerate(run.prompts)}
    ages = draws.count - 1
    step = Decode(
        own=run.own,
        prompts=run.shared,
        table=draws.table[:, : ages.max() // BLOCK + 1],
        ages=ages,
        prompt=np.array([order[job] for job in draws.job.tolist()]),
        prompt_table=block_table([prompt.blocks for prompt in prompts]),
        prompt_lengths=np.array([prompt.length for prompt in prompts]),
        device=run.model.device,
    )
    run.draws = _chosen(run, draws, advance(run.model, run.tokens[draws.home, ages], step))
    _leave(run)


def _reserve(run: _Run) -> None:
    """A block for each draw that begins one; where the budget is used up, the youngest draws go back and wait."""
    while True:
        draws = run.draws
        begins = np.flatnonzero((draws.count - 1) % BLOCK == 0)
        if len(begins) <= run.free_blocks() or len(draws.job) == 1:
            break
        run.waiting.appendleft((int(draws.job[-1]), int(draws.draw[-1])))
        _release(run, np.arange(len(draws.job)) < len(draws.job) - 1)
    draws.table[begins, (draws.count[begins] - 1) // BLOCK] = run.own.take(len(begins))


def _leave(run: _Run) -> None:
    """Take finished draws out of the batch, and prompts that no draw needs any more."""
    draws = run.draws
    stopped = np.isin(run.tokens[draws.home, draws.count - 1], run.ends)
    over = stopped | (draws.count == run.settings.max_new_tokens)
    if not over.any():
        return
    for i in np.flatnonzero(over).tolist():
        home, count, job = draws.home[i], draws.count[i], int(draws.job[i])
        said = Said(run.tokens[home, :count].tolist(), bool(stopped[i]), float(run.logprobs[home] / count))
        run.said[job][draws.draw[i]] = said
        run.prompts[job].unfinished -= 1
    run.finished += int(over.sum())
    _release(run, ~over)
    done = [job for job, prompt in run.prompts.items() if not prompt.unfinished]
    if done:
        numbers = run.shared.free(np.concatenate([run.prompts.pop(job).blocks for job in done]))
        for prompt in run.prompts.values():
            prompt.blocks = numbers[prompt.blocks]


def _release(run: _Run, keep: np.ndarray) -> None:
    """Only the draws marked in `keep` go on; the others' blocks and homes are free again."""
    gone = run.draws.table[~keep]
    run.homes += run.draws.home[~keep].tolist()
    run.draws = run.draws.where(keep)
    if (gone >= 0).any():
        numbers = run.own.free(gone[gone >= 0])
        run.draws.table = np.where(run.draws.table < 0, -1, numbers[run.draws.table])
