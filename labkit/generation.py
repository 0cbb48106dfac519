"""Sources of text behind one small protocol: a model in this process, or traces recorded earlier.

    generator = TransformersGenerator(model, tokenizer, "smollm2")
    [[first, second]] = generator.generate([Request("gsm8k/train/0", "2 + 2?", ("0/a", "0/b"))], Settings(0.8))

Text and addresses go in, text comes out; token ids stay inside. A draw's address alone decides its random numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from labkit.benchmarks import hub_rows
from labkit.choosing import Job, Said, Settings
from labkit.decoding import decode
from labkit.prompting import prompt_ids, render
from labkit.records import HALF, Completion, LabError, Trace, from_json, shown

__all__ = ["Generator", "RecordedGenerator", "Request", "Settings", "TransformersGenerator", "prompt_ids", "render"]

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Request:
    """One question and the draws wanted for it."""

    problem: str  # Problem.id
    question: str  # the user turn, not yet in a chat template
    seeds: tuple[str, ...]  # one address per draw; the last part is its number: "0/student-1/pocket_arc/train/3/5"
    shots: tuple[tuple[str, str], ...] = ()  # worked examples, as chat turns before the question


class Generator(Protocol):
    """Anything that answers requests: per request, per address, in order; a recording may hold fewer draws."""

    name: str

    def generate(
        self, requests: Sequence[Request], settings: Settings, progress: Progress | None = None
    ) -> list[list[Completion]]: ...


class TransformersGenerator:
    """A causal language model in this process, on the batching engine of `labkit.decoding`.

    Of the model's generation settings only the end tokens and the suppressed tokens are honoured: what the caller
    does not set is plain sampling at a temperature, as in the paper.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        batch: int | None = None,
        kv_tokens: int | None = None,
    ) -> None:
        """`batch`: draws running at a time; `kv_tokens`: budget of stored keys and values; None: fit for the model."""
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.batch, self.kv_tokens = batch, kv_tokens

    def generate(
        self, requests: Sequence[Request], settings: Settings, progress: Progress | None = None
    ) -> list[list[Completion]]:
        """All draws of all requests; `LabError` before the first one if a prompt leaves no room for an answer."""
        jobs = [Job(prompt_ids(self.tokenizer, request.question, request.shots), request.seeds) for request in requests]
        self._check_room(requests, jobs, settings)
        own = self.model.generation_config
        said = decode(
            self.model,
            jobs,
            settings,
            ends=self._ends(),
            suppressed=own.suppress_tokens or (),
            batch=self.batch,
            kv_tokens=self.kv_tokens,
            progress=progress,
        )
        return [[self._completion(draw) for draw in draws] for draws in said]

    def _ends(self) -> set[int]:
        own = self.model.generation_config.eos_token_id
        listed = own if isinstance(own, list) else [own]
        return {end for end in [*listed, self.tokenizer.eos_token_id] if end is not None}

    def _check_room(self, requests: Sequence[Request], jobs: Sequence[Job], settings: Settings) -> None:
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        for request, job in zip(requests, jobs, strict=True):
            if context and len(job.ids) + settings.max_new_tokens > context:
                raise LabError(
                    f"{request.problem}: its prompt is {len(job.ids)} tokens long and max_new_tokens is "
                    f"{settings.max_new_tokens}, together more than the {context} that {self.name} can hold: set "
                    f"max_new_tokens to {max(context - len(job.ids), 0)} or less, or leave the question out"
                )

    def _completion(self, said: Said) -> Completion:
        words = said.tokens[:-1] if said.stopped else said.tokens
        text = self.tokenizer.decode(words, skip_special_tokens=True)
        return Completion(text, "stop" if said.stopped else "length", len(said.tokens), said.logprob)


@dataclass(frozen=True)
class _Recorded:
    line: int
    question: str | None  # as it was put to the teacher, options included; None where the file does not say
    draw: int
    completion: Completion


class RecordedGenerator:
    """Draws that a teacher made earlier, from JSON Lines: a teacher's recording, or a run's own `traces/*.jsonl`.

    The same rows may be the train split of a dataset: a folder, or OWNER/NAME on the hub. A recording has `benchmark`,
    `row` (of the train split), `question`, `text`, and optionally `sample`, `tokens`, `finish_reason` and `model`.
    Settings are not applied: what was recorded is what is returned.
    """

    def __init__(self, path: str | Path) -> None:
        """Reads the file; `LabError` names the line that cannot be used."""
        self.path = Path(path)
        self.recorded: dict[str, list[_Recorded]] = {}
        models = []
        for number, row in _rows(self.path):
            problem, model, recorded = _recorded(self.path, number, row)
            self.recorded.setdefault(problem, []).append(recorded)
            models += [model] if model and model not in models else []
        for draws in self.recorded.values():
            draws.sort(key=lambda recorded: recorded.draw)
        self.name = ", ".join(models) or f"traces:{self.path.name}"

    def generate(
        self, requests: Sequence[Request], settings: Settings, progress: Progress | None = None
    ) -> list[list[Completion]]:
        """The recorded draws of each request, by the number its addresses end in; fewer where there are no more."""
        answers = []
        for request in requests:
            draws = self._draws(request)
            numbers = [_number(seed, i) for i, seed in enumerate(request.seeds)]
            answers.append([draws[n].completion for n in numbers if n < len(draws)])
            if progress is not None:
                progress(len(answers[-1]))
        return answers

    def _draws(self, request: Request) -> list[_Recorded]:
        benchmark = request.problem.split("/")[0]
        found = sorted({problem.split("/")[0] for problem in self.recorded})
        if benchmark not in found:
            raise LabError(f"{self.path}: no traces for benchmark {benchmark} in it (it has {', '.join(found)})")
        draws = self.recorded.get(request.problem, [])
        for recorded in draws:
            if not _same_question(recorded.question, request.question):
                raise LabError(
                    f"{self.path}, line {recorded.line}: recorded for another question than {request.problem}: the "
                    "traces belong to another version of the benchmark"
                )
        return draws


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.is_dir() or (not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+(?<!\.jsonl)(?<!\.json)", str(path))):
        try:
            yield from enumerate(hub_rows(str(path), None, "train"), 1)
        except LabError as error:
            raise LabError(f"traces:{error}") from None
        return
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"traces:{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    empty = True
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError: also an integer of thousands of digits
            raise LabError(f"{path}, line {number}: not JSON ({getattr(error, 'msg', error)})") from None
        if not isinstance(row, dict):
            raise LabError(f"{path}, line {number}: not a JSON object")
        empty = False
        yield number, row
    if empty:
        raise LabError(f"{path}: there are no traces in it")


def _recorded(path: Path, number: int, row: dict[str, Any]) -> tuple[str, str | None, _Recorded]:
    """(Problem.id, model, draw) of one line."""
    try:
        if HALF.search(str(row.get("text"))):
            raise LabError("half a character (a lone surrogate) in its text: save the file as UTF-8 again")
        if "problem" in row:
            trace = from_json(Trace, row)
            said = Completion(trace.text, trace.finish, trace.tokens, trace.logprob)
            return trace.problem, trace.model, _Recorded(number, None, trace.draw, said)
        finish = row.get("finish_reason", "stop")
        model, tokens, draw = row.get("model"), row.get("tokens", 0), row.get("sample", number)
        texts, counts = (row["text"], row["question"], row["benchmark"], model or ""), (row["row"], tokens, draw)
        if not all(isinstance(text, str) for text in texts) or not all(type(count) is int for count in counts):
            raise LabError("text, question, benchmark and model must be text, and row, tokens and sample whole numbers")
        if finish not in ("stop", "length"):
            raise LabError(f"finish_reason {shown(finish)} is neither stop nor length")
        said = Completion(row["text"], finish, tokens)
        problem = f"{row['benchmark']}/train/{row['row']}"
        return problem, model, _Recorded(number, row["question"], draw, said)
    except KeyError as error:
        raise LabError(
            f"{path}, line {number}: field {error} is missing; found {shown(', '.join(row))[1:-1]}"
        ) from None
    except LabError as error:
        raise LabError(f"{path}, line {number}: {error}") from None


def _number(seed: str, position: int) -> int:
    last = seed.rpartition("/")[2]
    return int(last) if last.isdecimal() else position


def _same_question(recorded: str | None, asked: str) -> bool:
    """Whether one contains the other, white space and the list of options apart."""
    if recorded is None:
        return True
    stem = re.split(r"\n\(?A[.):]\s", recorded)[0]
    old, stem, new = (" ".join(text.split()) for text in (recorded, stem, asked))
    return bool(stem) and (stem in new or new in old)
