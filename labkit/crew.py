"""What the processes of one run share: sampling, evaluation, and each optimiser step. See processes.py.

A student's or teacher's requests are dealt over the processes; a draw's address decides its random numbers, so it is
the same whoever makes it. Of an optimiser step, each process takes pairs of about the same number of tokens.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from labkit import models, processes, training
from labkit.config import RunConfig
from labkit.generation import Generator, Progress, Request, Settings, TransformersGenerator
from labkit.records import Completion


class Shared:
    """The leader's view of a model that every process holds."""

    def __init__(self, side: str, own: TransformersGenerator) -> None:
        """`side`: "teacher" or "student"; `own`: the leader's own copy."""
        self.name, self.side, self.own = own.name, side, own

    def generate(
        self, requests: Sequence[Request], settings: Settings, progress: Progress | None = None
    ) -> list[list[Completion]]:
        """All draws of all requests, in order; each process answers every n-th request."""
        processes.order("generate", self.side, requests, settings)
        mine = self.own.generate(processes.share(requests), settings, progress)
        others = processes.together(mine)[1:]
        if progress is not None:
            progress(sum(len(draws) for part in others for draws in part))
        return processes.dealt([mine, *others])


def shared(side: str, own: TransformersGenerator) -> Generator:
    """A model of this process alone, or of all."""
    return Shared(side, own) if processes.size() > 1 else own


@contextmanager
def teacher(config: RunConfig) -> Iterator[Generator]:
    """The teacher's model, loaded in every process while it is needed."""
    processes.order("teacher", config)
    own = _teacher(config)
    yield shared("teacher", own)
    processes.order("hush", "teacher")


def _teacher(config: RunConfig) -> TransformersGenerator:
    spec = config.teacher
    return TransformersGenerator(*models.load(spec, config.dtype), spec, batch=config.rows)


def student(checkpoint: Path | None, config: RunConfig) -> training.State:
    """The student, in every process: as it came, or at a checkpoint."""
    processes.order("student", checkpoint, config)
    return _student(checkpoint, config)


def _student(checkpoint: Path | None, config: RunConfig) -> training.State:
    if checkpoint:
        training.check(checkpoint)
    spec = str(checkpoint) if checkpoint and not config.lora_rank else config.student
    state = training.prepare(*models.load(spec, config.dtype), config)
    if checkpoint:
        training.restore(state, checkpoint)
    if config.loss == "kto" and config.method == "orpo":
        device = training.plain(state).device
        state.reference = models.load(config.student, config.dtype)[0].to(device).requires_grad_(False)
    return state


def speaker(model: models.Model, state: training.State, config: RunConfig) -> TransformersGenerator:
    """The student as this process's generator."""
    return TransformersGenerator(model, state.tokenizer, config.student, batch=config.rows)


# --- the followers ---------------------------------------------------------------------------------------------------


class Follower:
    """A process that does as it is told: what it holds, and a method per order."""

    def __init__(self) -> None:
        """Nothing is held at first."""
        self.speakers: dict[str, TransformersGenerator] = {}
        self.state: training.State | None = None
        self.config: RunConfig | None = None

    def teacher(self, config: RunConfig) -> None:
        """Load the teacher."""
        self.speakers["teacher"] = _teacher(config)

    def hush(self, side: str) -> None:
        """Forget a model."""
        del self.speakers[side]
        gc.collect()

    def student(self, checkpoint: Path | None, config: RunConfig) -> None:
        """Load the student."""
        self.state, self.config = _student(checkpoint, config), config
        self.speakers["student"] = speaker(training.plain(self.state), self.state, config)

    def generate(self, side: str, requests: Sequence[Request], settings: Settings) -> None:
        """Answer this process's share of the requests."""
        processes.together(self.speakers[side].generate(processes.share(requests), settings))

    def step(self, examples: list[training.Example], speed: float, lam: float) -> None:
        """Take one optimiser step."""
        training.take_step(self.state, examples, speed, lam, self.config)

    def gather(self, moments: bool) -> None:
        """Help to put a student together that is split over the processes."""
        training.gather(self.state, moments)


def follow() -> None:
    """A follower's life: orders until the last; a failure is told to the leader, and raised."""
    me = Follower()
    orders: dict[str, Callable[..., None]] = {
        "teacher": me.teacher, "hush": me.hush, "student": me.student, "generate": me.generate, "step": me.step,
        "gather": me.gather,
    }  # fmt: skip
    try:
        while (heard := processes.heard())[0] != "end":
            orders[heard[0]](*heard[1:])
    except BaseException as error:
        processes.leave(f"{type(error).__name__}: {error}")
        raise
    processes.leave()
