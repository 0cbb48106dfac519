"""ORPO-Distill from top to bottom (arXiv 2509.25100). `distill` below is the paper's algorithm, in its order.

labkit distill my-run --recipe pocket
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from labkit import (
    adapters,
    benchmarks,
    crew,
    difficulty,
    memory,
    models,
    pocket,
    processes,
    runs,
    servers,
    serving,
    training,
    triplets,
    trouble,
    verifiers,
)
from labkit.answers import Grader, grade
from labkit.config import RunConfig
from labkit.generation import RecordedGenerator, Request
from labkit.prompting import encode
from labkit.prompts import prompt
from labkit.records import LabError, Problem, Trace, Triplet
from labkit.sampling import Job, settings
from labkit.stages import Lab, evaluate, rendered, sample, say, train
from labkit.versions import versions


def distill(lab: Lab) -> None:
    """Steps 1 to 6 of the paper; whatever is in the run folder already is not done again."""
    config = lab.config
    evaluate(lab)
    if config.method == "zero-shot":
        return
    chosen = chosen_traces(lab)
    initial = initial_negatives(lab, chosen)
    for epoch in range(lab.student.epoch + 1, config.epochs + 1):
        train(lab, paired(lab, chosen, initial, epoch), epoch)
        if epoch % config.evaluate_every == 0 or epoch == config.epochs:
            evaluate(lab)


def chosen_traces(lab: Lab) -> triplets.Pools:
    """The teacher's correct traces: K per question, or one for single-CoT fine-tuning (as often as there are K)."""
    wanted = {problem.id: lab.config.k for problem in lab.train}
    if lab.config.difficulty == "k":
        most = min(2 * lab.config.k, lab.config.max_draws)
        wanted = difficulty.apportion(_error_rates(lab, wanted), sum(wanted.values()), most)
    chosen = sample(lab, Job("teacher", "teacher", 0, "correct"), wanted)
    if lab.config.method != "single-cot":
        return chosen
    return {problem: pool[:1] * (len(pool) if lab.config.repeat_single else 1) for problem, pool in chosen.items()}


def paired(lab: Lab, chosen: triplets.Pools, initial: triplets.Pools, epoch: int) -> list[Triplet]:
    """The triplets of an epoch; without a rejected side where nothing is contrasted."""
    config = lab.config
    if config.difficulty == "weights":
        rates = _error_rates(lab, {problem: len(pool) for problem, pool in chosen.items()})
        chosen = difficulty.shown(chosen, rates, config.seed, epoch)
    if not _contrasted(config, epoch):
        return triplets.make(chosen, {}, {}, epoch=epoch, phi=0.0, seed=config.seed)
    return triplets.make(
        chosen, initial, fresh_negatives(lab, chosen, epoch), epoch=epoch, phi=_phi(config, epoch), seed=config.seed,
        unpaired=config.unpaired, past_weight=config.past_weight, partner=config.partner,
    )  # fmt: skip


def initial_negatives(lab: Lab, chosen: triplets.Pools) -> triplets.Pools:
    """Wrong traces of the initial student, of the teacher, or of both; none for the fine-tuning baselines."""
    if lab.config.method != "orpo":
        return {}
    wanted = {problem: len(pool) for problem, pool in chosen.items()}
    jobs = {"student": Job("student-0", "student", 0, "wrong"), "teacher": Job("teacher-wrong", "teacher", 0, "wrong")}
    both = [sample(lab, job, wanted) for side, job in jobs.items() if lab.config.negatives in (side, "both")]
    return {problem: [trace for pools in both for trace in pools.get(problem, ())] for problem in chosen}


def _error_rates(lab: Lab, wanted: dict[str, int]) -> dict[str, float]:
    """How often the initial student errs, from the draws in which it is asked for wrong traces."""
    sample(lab, Job("student-0", "student", 0, "wrong"), wanted)
    return difficulty.error_rates(runs.records(lab.folder, "traces/student-0.jsonl", Trace))


def fresh_negatives(lab: Lab, chosen: triplets.Pools, epoch: int) -> triplets.Pools:
    """Wrong traces of the newest student, as many as this epoch's coins ask of it, and of older ones what they made."""
    config = lab.config
    if config.method != "orpo" or config.negatives == "teacher":
        return {}
    found: dict[str, list[Trace]] = {}
    for source in range(1 if config.past_weight else max(epoch - 1, 1), epoch):
        for problem, pool in _sampled(lab, chosen, source).items():
            found.setdefault(problem, []).extend(pool)
    return found


def _sampled(lab: Lab, chosen: triplets.Pools, source: int) -> triplets.Pools:
    """What the student after `source` epochs was asked for in the epoch that followed."""
    config, epoch = lab.config, source + 1
    if not _contrasted(config, epoch):
        return {}
    wanted = {}
    for problem, pool in chosen.items():
        tosses = triplets.coins(config.seed, epoch, problem, len(pool), _phi(config, epoch))
        wants = triplets.sources(tosses, config.seed, epoch, problem, config.past_weight)
        if n := wants.count(source):
            wanted[problem] = n
    return sample(lab, Job(f"student-{source}", "student", source, "wrong"), wanted) if wanted else {}


def _contrasted(config: RunConfig, epoch: int) -> bool:
    return config.method == "orpo" and epoch > config.sft_epochs


def _phi(config: RunConfig, epoch: int) -> float:
    return triplets.phi_at(config.phi, config.phi_schedule, epoch, config.epochs)


# --- around the algorithm --------------------------------------------------------------------------------------------


def prepare(folder: Path, config: RunConfig) -> None:
    """Create the run's folder, or check that it exists with the same settings; raises `LabError` for bad input."""
    if (folder / "config.json").exists():
        runs.check_same(folder, config)
        return
    problems = questions(config)
    check(config, problems)
    runs.create(folder, config, problems)


def run(
    folder: Path,
    shard: tuple[int, int] | None = None,
    algorithm: Callable[[Lab], None] = distill,
    grader: Grader = grade,
) -> str:
    """Start or continue a prepared run; returns its final state, `done` or `stopped`.

    With `shard` = (i, n) only its share of the first sampling is done: teacher and initial student on every n-th
    training question, from the i-th (see `labkit.shards`); a run begun so goes on so.
    `algorithm`: what is done, in which order; the paper's, or one of your own made of the same stages.
    `grader`: what counts as correct, in sampling and evaluation alike; by default the run's `verifier` decides, or
    the gold answer.

    Raises `LabError` for bad input. Any other failure is recorded in the run's status and log, and raised.
    """
    config = runs.load_config(folder)
    with runs.writing(folder):
        if runs.status(folder)["state"] == "done":
            training.drop_checkpoints(folder)  # where a kill came between
            return "done"
        shard = shard or runs.status(folder).get("shard")
        with _ending(folder):
            if shard:
                runs.write_status(folder, shard=shard)
            runs.recover(folder)
            problems = runs.records(folder, "problems.jsonl", Problem)
            train = [problem for problem in problems if problem.split == "train"]
            test = [problem for problem in problems if problem.split == config.split]
            judge = verifiers.grader(config.verifier) if grader is grade else grader
            lab = Lab(folder, config, train, test, _student(folder, config), judge)
            if shard:
                lab.train = train[shard[0] - 1 :: shard[1]]
                initial_negatives(lab, chosen_traces(lab))
                runs.write_status(folder, state="done", stage=None)
            else:
                algorithm(lab)
                _finish(lab)
    return runs.status(folder)["state"]


def questions(config: RunConfig) -> list[Problem]:
    """Training and test problems of a run: the seed draws from train; the test split is the same for every seed.

    Training rows that are also asked in the test split are left out.
    """
    train: list[Problem] = []
    test: list[Problem] = []
    recorded = _recorded(config)
    for name in config.benchmarks:
        asked = benchmarks.load(name, config.split, config.data)
        test += benchmarks.draw(asked, config.test_problems, None)
        if config.method == "zero-shot":
            continue
        clean = benchmarks.without_leaks(benchmarks.load(name, "train", config.data), asked)
        known = [problem for problem in clean if recorded is None or problem.id in recorded]
        if not known:
            what = (
                "every training question is also a test question"
                if not clean
                else "the teacher recorded none of its questions"
            )
            raise LabError(f"benchmark {name}: nothing to train on: {what}")
        train += benchmarks.draw(known, config.problems, config.seed)
    return [*train, *test]


def _recorded(config: RunConfig) -> set[str] | None:
    """Problems that recorded teacher traces cover; None for a teacher that can be asked anything."""
    if config.method == "zero-shot" or not config.teacher.startswith("traces:"):
        return None
    return set(RecordedGenerator(config.teacher.removeprefix("traces:")).recorded)


def check(config: RunConfig, problems: Sequence[Problem]) -> None:
    """Raises `LabError` for missing models, traces of other questions, and prompts that leave no room to answer."""
    if _recorded(config):
        train = [problem for problem in problems if problem.split == "train"]
        asked = [Request(problem.id, prompt(problem, config.instruction), ("0",)) for problem in train]
        RecordedGenerator(config.teacher.removeprefix("traces:")).generate(asked, settings(config))
    verifiers.grader(config.verifier)
    if config.lora_rank:
        adapters.peft()
    if config.contrast == "wrong-step" and (real := set(config.benchmarks) - set(pocket.BENCHMARKS)):
        raise LabError(
            f"contrast = 'wrong-step': nobody knows the wrong steps of {min(real)}: only of pocket benchmarks"
        )
    if config.loss == "kto" and processes.size() > 1:
        raise LabError(f"loss = 'kto' trains in one process, not in {processes.size()}: use orpo, cpo or simpo")
    if config.optimizer == "adamw8bit":
        training.adamw8bit()
    specs = {config.student} if config.method == "zero-shot" else {config.student, config.teacher}
    if config.serve:
        serving.check(config.serve)
    for spec in sorted(spec for spec in specs if servers.is_url(spec)):
        servers.check(spec, timeout=min(config.timeout, 60.0))
    for spec in sorted(spec for spec in specs if not spec.startswith("traces:") and not servers.is_url(spec)):
        models.verify(spec)
        tokenizer, limit = models.load_tokenizer(spec), models.context_length(spec)
        length, problem = max((len(encode(tokenizer, rendered(p, tokenizer, config))), p.id) for p in problems)
        if limit and length + config.max_new_tokens > limit:
            raise LabError(
                f"{problem}: its prompt of {length} tokens and max_new_tokens = {config.max_new_tokens} exceed the "
                f"{limit} tokens that {spec} can read: lower max_new_tokens to {max(limit - length, 0)} or less"
            )


def _student(folder: Path, config: RunConfig) -> training.State:
    """The student at the run's newest checkpoint, or as it came."""
    runs.write_status(folder, **runs.identity(), state="sampling", stage="loading", epochs=config.epochs, reason=None)
    if servers.is_url(config.student):
        runs.log_line(folder, "events.jsonl", event="started", step=0, epoch=0, versions=versions())
        return training.State(None, None, None, None)  # nothing of it is in this process
    checkpoint = training.newest_checkpoint(folder)
    state = crew.student(checkpoint, config)
    if config.method != "zero-shot" and state.plain is None:
        _tell_memory(folder, state, config)
    runs.keep_metrics(folder, state.step)
    started = {"step": state.step, "epoch": state.epoch, "processes": processes.size(), "versions": versions()}
    runs.log_line(folder, "events.jsonl", event="started", **started)
    return state


def _tell_memory(folder: Path, state: training.State, config: RunConfig) -> None:
    """Say what training will take, where it is a gigabyte or more or may not fit."""
    model = state.accelerator.unwrap_model(state.model)
    moments = None if config.optimizer == "adamw" else 2.1  # two bytes and a scale for each block
    parts = memory.needed(model, config.max_tokens, config.gradient_checkpointing, moments)
    fits, line = memory.verdict(parts, memory.free(model.device), config.max_tokens)
    runs.log_line(folder, "events.jsonl", event="memory", fits=fits, **parts)
    if not fits or sum(parts.values()) > 1e9:
        say(line)


def _finish(lab: Lab) -> None:
    """The trained student as an ordinary model folder; the checkpoints have served."""
    student = lab.student
    if lab.config.method != "zero-shot":
        training.save_student(student, lab.folder / "student")
    runs.write_status(lab.folder, state="done", stage=None, epoch=student.epoch, step=student.step)
    runs.log_line(lab.folder, "events.jsonl", event="done")
    training.drop_checkpoints(lab.folder)


@contextmanager
def _ending(folder: Path) -> Iterator[None]:
    """However the run ends, its status says so and why; only a kill leaves that to the next reader."""
    try:
        with processes.telling(lambda reason: _failed(folder, reason)):
            yield
    except BaseException as error:
        if lost := processes.reason_of(error):
            _failed(folder, lost)
            raise processes.Lost(lost) from error
        if isinstance(error, runs.Stopped | KeyboardInterrupt):
            reason = str(error) or None
            with suppress(OSError):
                runs.write_status(folder, state="stopped", reason=reason)
                runs.log_line(folder, "events.jsonl", event="stopped", reason=reason)
            say(f"stopped{f': {reason}' if reason else ''}; continue with: labkit distill {folder.name}")
            return
        if told := trouble.told(error, _state(folder), folder.name):
            _failed(folder, told)
            raise trouble.Trouble(told) from error
        _failed(folder, str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}")
        raise


def _failed(folder: Path, reason: str) -> None:
    """Write down why, as far as the disk lets it; within an exception, with its traceback."""
    with suppress(OSError):
        runs.write_status(folder, state="failed", reason=reason)
    with suppress(OSError):
        runs.log_line(folder, "events.jsonl", event="failed", reason=reason)
    with suppress(OSError), open(folder / "log.txt", "a", encoding="utf-8", errors="backslashreplace") as log:
        log.write(f"failed: {reason}\n")
        if sys.exc_info()[0]:
            traceback.print_exc(file=log)


def _state(folder: Path) -> str:
    """What the run was doing, by its status."""
    try:
        return runs.status(folder)["state"]
    except (LabError, OSError):
        return ""
