"""Who says what is correct where no single gold answer can: a function of your own, or unit tests of generated code.

    labkit distill mine --set verifier=my_checks:is_polite      def is_polite(text, problem): return True, False or None
    labkit distill mine --set verifier=tests                    a question's `answer` holds assert lines

The same verifier grades the teacher's traces, the student's, and the test questions.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from labkit.answers import Grader, grade
from labkit.records import Completion, LabError, Outcome, Problem, Reading

JAIL = Path(__file__).with_name("jail.py")
PATIENCE = 10.0  # seconds on the clock; jail.py limits the processor's
BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.S | re.I)


def grader(spec: str | None) -> Grader:
    """The grader of a run's `verifier`: the gold answer's for None, `tests`, or a function as `module:function`.

    The module may lie in the working directory. Raises `LabError` for one that cannot be had.
    """
    if spec is None:
        return grade
    if spec == "tests":
        if sys.platform == "win32":
            raise LabError("verifier = 'tests' needs the limits of Linux or macOS for the code that it runs")
        return by_tests
    return _by(spec, _function(spec))


def _function(spec: str) -> Callable[[str, Problem], bool | None]:
    module, _, name = spec.partition(":")
    if not module or not name:
        raise LabError(f"verifier = {spec!r}: write it as module:function, or tests")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # whatever the module does when it is imported
        raise LabError(f"verifier = {spec!r}: {module} cannot be imported ({type(error).__name__}: {error})") from None
    if not callable(found):
        raise LabError(f"verifier = {spec!r}: there is no function {name} in {module}")
    return found


def _by(spec: str, check: Callable[[str, Problem], bool | None]) -> Grader:
    """Grade by a function of (text, problem): True is correct, False wrong, None that nothing could be judged."""

    def graded(completion: Completion, problem: Problem) -> tuple[Outcome, Reading]:
        if completion.finish == "length":
            return _told("truncated", completion.text, spec)
        try:
            verdict = check(completion.text, problem)
        except Exception as error:  # the user's own code: name it, and what it was asked
            reason = f"{type(error).__name__}: {error}"
            raise LabError(f"verifier {spec} failed on an answer to {problem.id} ({reason})") from error
        if verdict not in (True, False, None):
            raise LabError(f"verifier {spec} said {verdict!r} of an answer to {problem.id}: say True, False or None")
        return _told("unparsed" if verdict is None else "correct" if verdict else "wrong", completion.text, spec)

    return graded


def by_tests(completion: Completion, problem: Problem) -> tuple[Outcome, Reading]:
    """Correct if the last block of code and then the problem's tests, in `answer`, run without an error."""
    code = code_of(completion.text)
    if completion.finish == "length":
        return _told("truncated", completion.text, "tests")
    if code is None:
        return "unparsed", Reading(None, None, None, False)
    passed = runs(f"{completion.text[slice(*code)]}\n\n{problem.answer}\n")
    return _told("correct" if passed else "wrong", completion.text, "tests", code)


def _told(outcome: Outcome, text: str, rule: str, span: tuple[int, int] | None = None) -> tuple[Outcome, Reading]:
    if outcome in ("unparsed", "truncated"):
        return outcome, Reading(None, rule, span, False)
    return outcome, Reading(text[slice(*span)] if span else outcome, rule, span, True)


def code_of(text: str) -> tuple[int, int] | None:
    """Where the last fenced block of code stands in a text."""
    found = list(BLOCK.finditer(text))
    return found[-1].span(1) if found else None


def runs(code: str) -> bool:
    """Whether Python code runs to its end, in a process and a temporary folder of its own, under the limits of jail.py.

    What it prints is thrown away. Everything it has started ends with it.
    """
    secret = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        (Path(folder) / "code.py").write_text(code, encoding="utf-8", errors="replace")
        child = subprocess.Popen(
            [sys.executable, "-I", str(JAIL), "code.py"],
            cwd=folder,
            env={"PATH": os.defpath},
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired, BrokenPipeError):
                child.communicate(f"{secret}\n".encode(), timeout=PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        said.seek(0)
        return child.returncode == 0 and said.read().endswith(f"\n{secret}\n".encode())
