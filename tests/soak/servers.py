"""The dashboard's server, killed while a run that it started is alive; and the whole machine, as far as one can.

Runs are started by clicking in a real browser. A kill of the server alone must not touch the run. A restart of the
machine is a SIGKILL of server, worker and run, after which their pids belong to somebody else.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Page, sync_playwright

from labkit import distill, queueing, runs
from labkit.config import recipe
from tests.app_server import browsing, free_port, open_tab
from tests.soak import kills

PATIENCE = 600  # seconds for a run of this size on a busy machine
END = ("done", "failed")


class Server:
    """A dashboard over a folder, to be killed and started again at the same address."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir, self.port = runs_dir, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "app", "--runs-dir", str(self.runs_dir), "--port", str(self.port)]
        with open(self.runs_dir / "server.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: _answers(self.port), "the server answers")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def _answers(port: int) -> bool:
    return any(one.laddr.port == port and one.status == "LISTEN" for one in psutil.net_connections("tcp"))


def until(happened: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
    """Wait for something; raises AssertionError if it does not come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if happened():
            return
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds:g} s")


@contextmanager
def dashboard(runs_dir: Path) -> Iterator[tuple[Server, Page]]:
    """A server and a page of a real browser."""
    server = Server(runs_dir)
    try:
        with sync_playwright() as engine, browsing(engine) as browser:
            page = browser.new_page()
            page.set_default_timeout(120_000)
            yield server, page
    finally:
        server.kill()


def prepared(folder: Path) -> Path:
    """A run with the settings of the kills, ready to be started in the dashboard."""
    distill.prepare(folder, recipe("pocket-quick", kills.SETTINGS))
    return folder


def click_start(page: Page, server: Server, run: Path) -> None:
    """Start or resume a run by its button."""
    open_tab(page, server.url, "runs", run=run.name)
    page.click("#run-resume:enabled")
    page.wait_for_selector("#run-told .good")


def crash(runs_dir: Path, run: Path) -> list[int]:
    """SIGKILL worker and run, as when the machine goes down; their pids."""
    status = runs.status(run)
    work = [p.pid for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[-1:] == [str(runs_dir)]]
    killed = [pid for pid in [*work, status.get("pid")] if pid and psutil.pid_exists(pid) and pid != os.getpid()]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not queueing.working(runs_dir), "the worker is gone")
    return killed


def round_(folder: Path, number: int, rng: random.Random, machine: bool, whole: dict[str, bytes]) -> dict[str, Any]:
    """One run started by the server and one that waits; a kill; both must end with the bytes of `whole`."""
    runs_dir = folder / f"round-{number}"
    runs_dir.mkdir()
    first, second = (prepared(runs_dir / name) for name in ("first", "second"))
    with dashboard(runs_dir) as (server, page):
        click_start(page, server, first)
        until(lambda: runs.status(first)["state"] in runs.LIVE, "the run lives")
        click_start(page, server, second)
        time.sleep(rng.random() * 15)
        state, stranger = runs.status(first).get("stage"), None
        server.kill()
        if machine and runs.status(first)["state"] in runs.LIVE:
            crash(runs_dir, first)
            stranger = _reuse_pid(first)
            assert runs.status(first)["state"] == "died" and not runs.stop(first)
        waiting = queueing.read(runs_dir)["waiting"]
        server.start()
        if machine:
            click_start(page, server, first) if runs.status(first)["state"] == "died" else queueing.wake(runs_dir)
        until(lambda: runs.status(first)["state"] in END and runs.status(second)["state"] in END, "both runs end")
        if stranger:
            assert stranger.poll() is None, "a stranger's process was signalled"
            stranger.kill()
            stranger.wait()
    for run in (first, second):
        assert kills.same(run) == whole, f"{run} has other bytes than the uninterrupted run"
        assert not kills.left_over(run), kills.left_over(run)
    until(lambda: not queueing.working(runs_dir), "the worker ends")
    return {"killed": "server, worker and run" if machine else "server", "stage": state, "waiting": waiting}


def _reuse_pid(run: Path) -> subprocess.Popen[bytes]:
    """Somebody else's process under the pid that the run's status names, as after a restart."""
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    runs.replace(run / "status.json", (run / "status.json").read_text().replace(
        f'"pid": {runs.status(run)["pid"]}', f'"pid": {stranger.pid}'))  # fmt: skip
    return stranger


def campaign(folder: Path, rounds: int, seed: int, note: Callable[[str], None]) -> dict[str, Any]:
    """`rounds` kills in turn of the server alone and of everything; raises AssertionError where something is lost."""
    kills.uninterrupted(folder / "whole")
    whole, rng, made = kills.same(folder / "whole"), random.Random(seed), []
    for number in range(1, rounds + 1):
        made.append(round_(folder, number, rng, number % 2 == 0, whole))
        note(f"{number}/{rounds}: {made[-1]}")
    alone = sum(one["killed"] == "server" for one in made)
    return {
        "server killed": alone, "everything killed": rounds - alone, "runs finished with the same bytes": 2 * rounds,
        "strangers signalled": 0, "killed at": [one["stage"] for one in made],
    }  # fmt: skip
