"""Thousands of runs in one folder: how long the list takes, in a terminal and in the dashboard."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app import accuracy_page, run_page, runs_tab, store
from tests.app_server import DEMO

SMALL = ("config.json", "status.json", "commits.json", "problems.jsonl", "scores.jsonl", "events.jsonl")


def fill(folder: Path, count: int) -> Path:
    """`count` finished runs, without their traces."""
    for number in range(count):
        run = folder / f"run-{number:05d}"
        run.mkdir(parents=True)
        for name in SMALL:
            if (DEMO / name).exists():
                shutil.copyfile(DEMO / name, run / name)
    return folder


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return round(time.perf_counter() - began, 3)


def campaign(folder: Path, count: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Seconds of what is done with a folder of `count` runs; the second time is what each tick of a page costs."""
    fill(folder, count)
    note(f"{count} runs made")
    command = [sys.executable, "-m", "labkit", "list", "--json", "--runs-dir", str(folder)]
    name = f"run-{count // 2:05d}"
    views = {
        "one run found": lambda: store.folder(folder, name), "names": lambda: store.folders(folder),
        "list of the Runs tab": lambda: run_page.listing(folder, name),
        "tick of the Runs tab": lambda: runs_tab._drawn(folder, name, {}),
        "choices of the Accuracy tab": lambda: accuracy_page.points(folder),
    }  # fmt: skip
    found: dict[str, Any] = {"runs": count}
    found["labkit list s"] = _timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    for label, call in views.items():
        found[f"{label}, first s"], found[f"{label}, again s"] = _timed(call), _timed(call)
        note(f"{label}: {found[f'{label}, first s']} s, then {found[f'{label}, again s']} s")
    return found
