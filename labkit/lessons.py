"""What the notebooks share: settings that a test can shrink, runs in the folder beside them, exercises that check.

    folder = run("first", settings("pocket", problems=20))
    check(my_answer, lambda given: given == 7, "count the words once more")

With LABKIT_SMOKE=1 in the environment `settings` are cut down until a run takes seconds: for tests, not for reading.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labkit import distill, methods, runs
from labkit.answers import Grader, grade
from labkit.config import RunConfig, recipe
from labkit.models import Model, Tokenizer
from labkit.orpo import encode_response, token_logps
from labkit.packing import Example
from labkit.prompting import prompt_ids
from labkit.records import Answer, LabError
from labkit.stages import Lab

RUNS = Path("runs")
LIMITS = {"problems": 4, "test_problems": 8, "k": 3, "epochs": 2, "max_draws": 6, "max_new_tokens": 96, "batch": 16}


def smoke() -> bool:
    """Whether LABKIT_SMOKE asks for the smallest sizes."""
    return os.environ.get("LABKIT_SMOKE", "0") not in {"", "0"}


def few(n: int, small: int = 4) -> int:
    """`n`, or at most `small` of whatever is counted in a smoke test."""
    return min(n, small) if smoke() else n


def settings(name: str = "pocket", **changes: Any) -> RunConfig:
    """A recipe with changes, as `labkit.config.recipe`; in a smoke test no count exceeds `LIMITS`."""
    config = recipe(name, changes)
    if not smoke():
        return config
    counts = {field: min(getattr(config, field) or limit, limit) for field, limit in LIMITS.items()}
    return recipe(name, {**changes, **counts})


def run(
    name: str, config: RunConfig, algorithm: Callable[[Lab], None] = distill.distill, grader: Grader = grade
) -> Path:
    """Do the run `name` in `runs/` (or what is left of it), saying its progress here; returns its folder.

    `algorithm` and `grader` go to `labkit.distill.run`. Raises `LabError` if a run of that name has other settings.
    """
    folder = runs.folder_of(RUNS, name)
    RUNS.mkdir(exist_ok=True)
    with _said():
        distill.prepare(folder, config)
        distill.run(folder, algorithm=algorithm, grader=grader)
    return folder


def run_methods(
    name: str, config: RunConfig, seeds: int, only: Sequence[str] = tuple(methods.METHODS)
) -> methods.Cells:
    """Do `only` these of the paper's methods with that many seeds, as `labkit methods`; returns the cells."""
    RUNS.mkdir(exist_ok=True)
    cells = {key: cell for key, cell in methods.group(RUNS, name, config, seeds).items() if key[0] in only}
    with _said():
        states = methods.run_group(cells)
    if set(states.values()) != {"done"}:
        raise LabError(f"group {name}: not every run is done: {states}")
    return cells


@contextlib.contextmanager
def _said() -> Any:
    """The lines of a run go where a notebook prints: on its error stream they would look like errors."""
    with contextlib.redirect_stderr(sys.stdout):
        yield


def mean_logps(model: Model, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """How likely the model finds each (question, response): mean token log-probability of the response, in nats."""
    examples = [
        Example(tuple(prompt_ids(tokenizer, question)), (encode_response(tokenizer, response),), (None,))
        for question, response in pairs
    ]
    return [float(chosen.mean()) for ((chosen, _),) in token_logps(model, examples)]


def right(answers: Mapping[str, Answer]) -> np.ndarray:
    """1 for every question answered correctly, 0 for the others, in the order of the question ids."""
    return np.array([answers[problem].outcome == "correct" for problem in sorted(answers)], float)


def check(given: Any, holds: Callable[[Any], bool], hint: str) -> None:
    """Say whether an exercise's answer is right; `...` (not answered yet) is no mistake, a wrong one gets the hint."""
    if given is ...:
        print("Waiting for your answer: put it in place of the dots above, run both cells again.")
    elif holds(given):
        print("Right.")
    else:
        print(f"Not yet. Hint: {hint}")
