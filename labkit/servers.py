"""A model behind an OpenAI-compatible URL, in the protocol of `labkit.generation`: vLLM, SGLang, llama.cpp, hosted ...

    generator = UrlGenerator("http://127.0.0.1:8000/v1#my-model", concurrency=16)

Plain sampling at a temperature is asked for, as in the paper: top-k, min-p and repetition penalties that a server
applies by itself are switched off where it has them. What a server refuses by name is left out from then on.
A seed is sent for each request, but no server promises to repeat itself: the stored traces are what is reproducible.
"""

from __future__ import annotations

import hashlib
import queue
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit import asking
from labkit.budget import Budget, Capped, Journal
from labkit.catalog import check, explain, only_model
from labkit.generation import Progress, Request, Settings
from labkit.records import Completion, LabError
from labkit.replies import chat, completions, prompt_tokens, split_control

__all__ = ["Budget", "Capped", "UrlGenerator", "check", "is_url"]

PLAIN = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
OPTIONAL = (*PLAIN, "logprobs", "top_logprobs", "seed", "n", "top_p")


@dataclass(frozen=True)
class _Task:
    """One HTTP request to make: draws of one question."""

    row: int
    request: Request
    draws: tuple[int, ...]  # positions in request.seeds


def is_url(spec: str) -> bool:
    """Whether a teacher or student is named by the address of a server."""
    return spec.startswith(("http://", "https://"))


class UrlGenerator:
    """Requests in parallel, each answer kept in a journal as it comes."""

    def __init__(
        self,
        spec: str,
        *,
        concurrency: int = 8,
        choices: int = 1,
        budget: Budget | None = None,
        journal: Path | None = None,
        key: bool = True,
        clean: Callable[[str], str] = split_control,
        **settings: Any,
    ) -> None:
        """`choices`: draws per request; `clean`: as in `chat`; `settings`: timeout, retries ... of `asking.Server`."""
        self.name, self.concurrency, self.choices, self.clean = spec, concurrency, choices, clean
        self.server = asking.connect(spec, key=key, connections=concurrency, **settings)
        self.budget = budget or Budget()
        self.journal = Journal(journal, self.budget)
        self.left_out: set[str] = set()  # fields that this server does not take
        self.limit, self.doubted = "max_tokens", False

    def generate(
        self, requests: Sequence[Request], settings: Settings, progress: Progress | None = None
    ) -> list[list[Completion]]:
        """All draws of all requests; those in the journal are not asked again.

        Raises `LabError` when the server is gone or refuses, `Capped` before the spending cap could be passed.
        """
        tasks: queue.Queue[_Task] = queue.Queue()
        answers: list[dict[int, Completion]] = [{} for _ in requests]
        for row, request in enumerate(requests):
            for position, seed in enumerate(request.seeds):
                if (known := self.journal.answers.get(_address(request, seed))) is not None:
                    answers[row][position] = known
            for draws in _groups(request, answers[row], 1 if settings.temperature == 0 else self.choices):
                tasks.put(_Task(row, request, draws))
        self._answer(tasks, settings, answers, progress or (lambda n: None))
        if settings.temperature > 0:
            self._doubt(answers)
        return [[found[position] for position in sorted(found)] for found in answers]

    def _doubt(self, answers: list[dict[int, Completion]]) -> None:
        """Say so, once, where seeds change nothing: some servers sample only if the model's own settings say so."""
        several = [{said.text for said in found.values()} for found in answers if len(found) > 1]
        if len(several) > 3 and all(len(texts) == 1 for texts in several) and not self.doubted:
            self.doubted = True
            if self.server.note is not None:
                self.server.note(
                    f"{self.server.url}: says the same whatever the seed; does it sample? (transformers serve needs "
                    "do_sample: true in the model's generation_config.json)"
                )

    def _answer(
        self, tasks: queue.Queue[_Task], settings: Settings, answers: list[dict[int, Completion]], progress: Progress
    ) -> None:
        """Work off the tasks in daemon threads, which end with the process: a second Ctrl-C waits for no server."""
        results: queue.Queue[tuple[_Task, list[Completion]] | BaseException] = queue.Queue()
        left, self.server.halt = tasks.qsize(), threading.Event()
        work = (tasks, settings, results)
        threads = [
            threading.Thread(target=self._work, args=work, daemon=True) for _ in range(min(self.concurrency, left))
        ]
        for thread in threads:
            thread.start()
        try:
            while left:
                try:
                    done = results.get(timeout=1.0)
                except queue.Empty:
                    progress(0)  # a sign of life
                    continue
                if isinstance(done, BaseException):
                    raise done
                task, said = done
                answers[task.row].update(zip(task.draws, said, strict=True))
                left -= 1
                progress(len(said))
        except Exception:
            self.server.halt.set()
            for thread in threads:  # answers under way are paid for: a moment for the journal to get them
                thread.join(10 / len(threads))
            raise

    def _work(self, tasks: queue.Queue[_Task], settings: Settings, results: queue.Queue[Any]) -> None:
        while not self.server.halt.is_set():
            try:
                task = tasks.get_nowait()
            except queue.Empty:
                return
            try:
                results.put((task, self._draws(task, settings)))
            except BaseException as error:
                results.put(error)
                return

    def _draws(self, task: _Task, settings: Settings) -> list[Completion]:
        """The task's draws; a server that gives fewer choices than asked for is asked for the rest."""
        said: list[Completion] = []
        while len(said) < len(task.draws):
            seeds = [task.request.seeds[position] for position in task.draws[len(said) :]]
            paid_in, completions = self._paid(task.request, seeds, settings)
            for seed, completion in zip(seeds, completions, strict=False):
                self.journal.write(_address(task.request, seed), completion, paid_in)
                paid_in = 0  # once per request
                said.append(completion)
        return said

    def _paid(self, request: Request, seeds: list[str], settings: Settings) -> tuple[int, list[Completion]]:
        """(prompt tokens, completions) of one request, held against the budget while it runs."""
        messages = chat(request, self.clean)
        most = (prompt_tokens(messages), len(seeds) * settings.max_new_tokens)
        held, spent = True, (0, 0)
        self.budget.hold(most)

        def lost() -> None:
            nonlocal held
            self.journal.lost(most)
            self.budget.settle(most, most)
            held = False
            self.budget.hold(most)  # the next try may be the one too many
            held = True

        try:
            paid_in, said = self._reply(request, messages, seeds, settings, lost)
            spent = (most[0] if paid_in is None else paid_in, sum(one.tokens for one in said))
            return spent[0], said
        finally:
            if held:
                self.budget.settle(most, spent)

    def _reply(
        self, request: Request, messages: list[dict[str, str]], seeds: list[str], settings: Settings, lost: Any
    ) -> tuple[int | None, list[Completion]]:
        while True:
            body = self._body(messages, seeds, settings)
            try:
                return asking.ask(
                    self.server, "chat/completions", body, lambda reply: completions(reply, len(seeds), settings), lost
                )
            except asking.Refused as refused:
                if not self._adapt(refused, body):
                    raise LabError(f"{request.problem}: {explain(self.server, refused)}") from None

    def _body(self, messages: list[dict[str, str]], seeds: list[str], settings: Settings) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.server.model or only_model(self.server),
            "messages": messages,
            self.limit: settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "n": len(seeds),
            "seed": int.from_bytes(hashlib.blake2b(seeds[0].encode(), digest_size=4).digest()) >> 1,
            "logprobs": True,
            "top_logprobs": 1,
            **PLAIN,
        }
        return {name: value for name, value in body.items() if name not in self.left_out}

    def _adapt(self, refused: asking.Refused, body: dict[str, Any]) -> bool:
        """Whether the server named something that can be left out or goes by another name."""
        if refused.status not in (400, 422):
            return False
        if self.limit == "max_tokens" and "max_completion_tokens" in refused.said:
            self.limit = "max_completion_tokens"
            return True
        named = {name for name in OPTIONAL if name in body and _names(refused.said, name)}
        self.left_out |= named | ({"top_logprobs"} if "logprobs" in named else set())
        return bool(named)


def _names(text: str, field: str) -> bool:
    quoted = rf"['\"`]{field}['\"`]"
    return bool(re.search(quoted if len(field) == 1 else rf"(?<!\w){field}(?!\w)", text))


def _address(request: Request, seed: str) -> str:
    return f"{request.problem} {seed}"


def _groups(request: Request, known: dict[int, Completion], size: int) -> list[tuple[int, ...]]:
    missing = [position for position in range(len(request.seeds)) if position not in known]
    return [tuple(missing[i : i + size]) for i in range(0, len(missing), size)]


def speaker(spec: str, config: Any, folder: Path, note: Callable[[str], None]) -> UrlGenerator:
    """The server that a run asks, with the run's own limits and its journal of what was paid for."""
    budget = Budget(config.token_cap, config.money_cap, config.price_in, config.price_out)
    return UrlGenerator(
        spec, concurrency=config.concurrency, choices=config.choices, budget=budget, journal=folder / "servers.jsonl",
        timeout=config.timeout, retries=config.retries, note=note,
    )  # fmt: skip
