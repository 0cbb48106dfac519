"""Shared by all tests: where the project and the optional real rows lie, and problems of each kind."""

import gc
import os
import re
import sys
import time
from pathlib import Path

import pytest
from app_server import CHROMIUM, browsing, new_page
from hypothesis import HealthCheck, settings

from labkit import cli
from labkit.records import Problem

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as labkit/__init__.py: a test may import torch before it
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the hub is a mistake
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

# the same examples in every run; LABKIT_EXAMPLES=5000: so many, and new ones each time
EXAMPLES = int(os.environ.get("LABKIT_EXAMPLES", "0"))
settings.register_profile(
    "inputs",
    max_examples=EXAMPLES or 60,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("inputs")

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "benchmarks"
TRACES = ROOT.parent / "shared" / "teacher-traces" / "traces.jsonl"

KINDS = {  # a question of each kind
    "number": Problem("x", "x", "test", "?", "number", "18"),
    "boolean": Problem("x", "x", "test", "?", "boolean", "yes"),
    "text": Problem("x", "x", "test", "?", "text", "Paris"),
    "choice": Problem("x", "x", "test", "?", "choice", "A", ("iron nail", "rope"), ("A", "B")),
    "open": Problem("x", "x", "test", "?", "choice", "rope", ("iron nail", "rope")),
}


def seconds(call, *arguments, times=2):
    """The least processor time of some calls: other work on the machine only adds."""
    found = []
    gc.disable()  # its time depends on everything else that this process holds
    try:
        for _ in range(times):
            start = time.process_time()
            call(*arguments)
            found.append(time.process_time() - start)
    finally:
        gc.enable()
    return min(found)


@pytest.fixture
def real_rows() -> Path:
    """Folder with rows of the real benchmarks; they are not part of the project."""
    if not REAL.is_dir():
        pytest.skip("real benchmark rows are not beside the project (../shared/benchmarks)")
    return REAL


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command of labkit in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["labkit", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; where there is none the test is skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `test`)")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: browser tests need one")
    with playwright.sync_playwright() as engine, browsing(engine) as found:
        yield found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Lets the page of a failed test say what it showed."""
    report = yield
    item.failed = getattr(item, "failed", False) or report.failed
    return report


@pytest.fixture
def page(browser, request):
    """A fresh page that fails the test for console errors and for requests to anywhere else."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, color_scheme="light")
    opened, trouble = new_page(context), []
    opened.on("console", lambda message: message.type == "error" and trouble.append(message.text))
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on(
        "request", lambda sent: re.match(r"(http://127\.0\.0\.1|data:|blob:)", sent.url) or trouble.append(sent.url)
    )
    yield opened
    if getattr(request.node, "failed", False):
        print(opened.url, opened.inner_text("body")[-3000:], *trouble, sep="\n")
    context.close()
    left = ("AbortError", "Connection errored out")  # leaving a page aborts its requests, and gradio logs that
    trouble = [one for one in trouble if not any(word in one for word in left)]
    assert not trouble, trouble
