"""The stages of a run over its folder: sample traces, train an epoch, evaluate. Finished units are never done twice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from labkit import crew, evaluation, models, runs, sampling, servers, serving, training, triplets
from labkit.answers import Grader, grade
from labkit.config import RunConfig
from labkit.generation import Generator, RecordedGenerator, render
from labkit.prompts import prompt, worked_examples
from labkit.records import Answer, Problem, Score, Trace, Triplet, printable


@dataclass
class Lab:
    """A run in progress: its folder, settings, questions, the student as it is now, and who says what is correct."""

    folder: Path
    config: RunConfig
    train: list[Problem]
    test: list[Problem]
    student: training.State
    grader: Grader = grade


def sample(lab: Lab, job: sampling.Job, wanted: dict[str, int]) -> triplets.Pools:
    """The kept traces of a stage, sampled where traces/STAGE.jsonl does not hold them yet.

    `wanted`: traces to keep per problem id; problems that are not in it are not asked.
    """
    file = f"traces/{job.stage}.jsonl"
    problems = [problem for problem in lab.train if problem.id in wanted]
    finished = runs.done(lab.folder, file)
    if finished < len(problems):
        runs.write_status(lab.folder, state="sampling", stage=job.stage, epoch=lab.student.epoch)
        rest = problems[finished:]
        counts = [wanted[problem.id] for problem in rest]
        with _bar(f"{job.stage}: {job.want} traces", len(problems), finished) as bar, _speaker(lab, job) as speaker:
            said = sampling.sample(speaker, rest, counts, job, lab.config, _alive(lab, bar), lab.grader)
            for chunk in said:
                finished = min(finished + lab.config.chunk, len(problems))
                runs.append(lab.folder, file, chunk, finished)
                bar.update(finished - bar.n)
                bar.set_postfix(kept=f"{sum(trace.use == 'kept' for trace in chunk) / max(len(chunk), 1):.0%}")
                _stop_if_asked(lab)
        counted = sampling.tally(runs.records(lab.folder, file, Trace), wanted)
        runs.log_line(lab.folder, "events.jsonl", event="sampled", stage=job.stage, **counted)
        say(f"{job.stage}: kept {counted['kept']} of {counted['draws']} draws; {counted['short']} questions short")
    return sampling.pools(runs.records(lab.folder, file, Trace))


@contextmanager
def _speaker(lab: Lab, job: sampling.Job) -> Iterator[Generator]:
    """Who samples: the teacher's recorded traces, server or model; or the student as it is now, here or served."""
    spec, config = lab.config.teacher, lab.config
    with _capped():
        if job.side == "student" and config.serve:
            model = training.finished(lab.student)
            with serving.served(model, lab.student.tokenizer, config, lab.folder, say) as generator:
                yield generator
        elif job.side == "student":
            yield _student(lab)
        elif servers.is_url(spec):
            yield servers.speaker(spec, config, lab.folder, say)
        elif spec.startswith("traces:"):
            yield RecordedGenerator(Path(spec.removeprefix("traces:")))
        else:
            with crew.teacher(config) as generator:
                yield generator


@contextmanager
def _capped() -> Iterator[None]:
    """A spending cap stops the run; whatever was paid for is in its journal."""
    try:
        yield
    except servers.Capped as reached:
        raise runs.Stopped(str(reached)) from None


def _student(lab: Lab) -> Generator:
    student, spec = lab.student, lab.config.student
    if servers.is_url(spec):
        return servers.speaker(spec, lab.config, lab.folder, say)
    return crew.shared("student", crew.speaker(training.whole(student), student, lab.config))


def train(lab: Lab, pairs: Sequence[Triplet], epoch: int) -> None:
    """One epoch on its triplets, from the step where the student stands; checkpoints on the way and at the end."""
    config, student = lab.config, lab.student
    if not runs.done(lab.folder, f"triplets/epoch-{epoch}.jsonl"):
        runs.append(lab.folder, f"triplets/epoch-{epoch}.jsonl", pairs, 1)
        runs.log_line(lab.folder, "events.jsonl", event="paired", epoch=epoch, **triplets.tally(pairs))
    asked = {problem.id: problem for problem in lab.train} if config.contrast == "wrong-step" else None
    rows, dropped = training.encode(pairs, _prompts(lab), student.tokenizer, config.max_length, asked)
    if dropped:
        runs.log_line(lab.folder, "events.jsonl", event="too long", epoch=epoch, dropped=dropped)
        say(f"epoch {epoch}: {dropped} sides longer than max_length = {config.max_length} tokens left out")
    steps = training.steps_of(rows, config, epoch)
    runs.write_status(lab.folder, state="training", stage=f"epoch {epoch}", epoch=student.epoch, steps=len(steps))
    with _bar(f"epoch {epoch}: steps", len(steps), student.epoch_step) as bar:
        for metrics in training.train_epoch(student, steps, config):
            runs.log_line(lab.folder, "metrics.jsonl", **metrics)
            runs.beat(lab.folder, step=student.step)
            bar.update()
            bar.set_postfix(loss=f"{metrics['loss']:.3f}")
            if student.step % config.checkpoint_steps == 0 or runs.asked_to_stop(lab.folder):
                training.save_checkpoint(student, lab.folder)
                _stop_if_asked(lab)
    training.save_checkpoint(student, lab.folder)


def _prompts(lab: Lab) -> dict[str, str]:
    return {problem.id: rendered(problem, lab.student.tokenizer, lab.config) for problem in lab.train}


def rendered(problem: Problem, tokenizer: models.Tokenizer, config: RunConfig) -> str:
    """The prompt exactly as a model sees it, in sampling, training and evaluation alike."""
    question = prompt(problem, config.instruction)
    return render(tokenizer, question, worked_examples(problem, config.shots, config.instruction))


def evaluate(lab: Lab) -> None:
    """Greedy answers of the student as it is now to every test question, and their scores."""
    epoch = lab.student.epoch
    if any(score.epoch >= epoch for score in runs.records(lab.folder, "scores.jsonl", Score)):
        return
    file = f"answers/epoch-{epoch}.jsonl"
    finished = runs.done(lab.folder, file)
    runs.write_status(lab.folder, state="evaluating", stage=f"after epoch {epoch}", epoch=epoch)
    with _bar(f"epoch {epoch}: test questions", len(lab.test), finished) as bar, _capped():
        rest = lab.test[finished:]
        for chunk in evaluation.answer(_student(lab), rest, epoch, lab.config, _alive(lab, bar), lab.grader):
            finished += len(chunk)
            runs.append(lab.folder, file, chunk, finished)
            bar.update(len(chunk))
            _stop_if_asked(lab)
    scores = evaluation.scores(runs.records(lab.folder, file, Answer))
    runs.append(lab.folder, "scores.jsonl", scores, runs.done(lab.folder, "scores.jsonl") + 1)
    runs.log_line(lab.folder, "events.jsonl", event="evaluated", epoch=epoch)
    say(f"epoch {epoch}: mean accuracy {sum(score.accuracy for score in scores) / len(scores):.1%}")


_tell: Callable[[str], None] | None = None


def say(line: str) -> None:
    """One line for whoever watches: the terminal, or log.txt."""
    with suppress(OSError, EOFError):  # no listener, a closed terminal or a full disk under log.txt ends no run
        if _tell is not None:
            _tell(line)
        else:
            tqdm.write(printable(line), file=sys.stderr)


def say_through(tell: Callable[[str], None]) -> None:
    """From now on, what this process says is given to `tell`, which has it said where somebody watches."""
    global _tell
    _tell = tell


def _bar(label: str, total: int, finished: int) -> tqdm:
    """A progress bar with time left on a terminal; nothing in a log, and nothing where others have theirs."""
    hidden = _tell is not None or not sys.stderr.isatty()
    return tqdm(total=total, initial=finished, desc=label, leave=False, disable=hidden)


def _alive(lab: Lab, bar: tqdm) -> Callable[[int], None]:
    """Shows that a long chunk is alive; the bar itself counts whole chunks, which are what a kill cannot take."""
    drawn = 0

    def told(n: int) -> None:
        nonlocal drawn
        drawn += n
        bar.set_postfix(said=drawn)
        runs.beat(lab.folder, said=drawn)

    return told


def _stop_if_asked(lab: Lab) -> None:
    if runs.asked_to_stop(lab.folder):
        raise runs.Stopped
