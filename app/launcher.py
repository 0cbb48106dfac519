"""Starting and ending things: every process and every deletion goes through here, checked, from lists of arguments.

A new run is a draft (`runs/.drafts/NAME.json`, checked settings) until a child process has prepared its folder; then it
is in the queue. Drafts, queue and run folders are all files, so every page and every restart sees the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from app import store
from labkit import queueing, runs
from labkit.config import RunConfig, recipe
from labkit.records import LabError

DEMO_RECIPE = "pocket-quick"


def demo_mode() -> bool:
    """Whether this is a public demo (LABKIT_DEMO=1): recorded runs, and the quick pocket run, one at a time."""
    return os.environ.get("LABKIT_DEMO") == "1"


def start(runs_dir: Path, name: str, config: RunConfig) -> None:
    """Prepare a new run in a child process and queue it; raises `LabError` for a bad or taken name."""
    folder = runs.folder_of(runs_dir, name)
    if folder.exists() or name in drafts(runs_dir) or name in store.folders(runs_dir):
        raise LabError(f"a run {name} exists: choose another name")
    where = runs_dir / ".drafts"
    try:
        where.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"{runs_dir}: cannot be written ({error.strerror}); see --runs-dir") from None
    (where / f"{name}.error").unlink(missing_ok=True)
    try:
        runs.replace(where / f"{name}.json", json.dumps(config.model_dump(mode="json"), indent=1) + "\n")
    except OSError as error:
        raise LabError(f"{where}: cannot be written ({error.strerror}): free some space, then start again") from None
    with open(where / f"{name}.log", "wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "app.create", str(runs_dir), name],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    (where / f"{name}.pid").write_text(str(child.pid))
    _children.append(child)


_children: list[subprocess.Popen[bytes]] = []  # kept so that finished ones are reaped by poll


def start_demo(runs_dir: Path) -> str:
    """The one run that a public demo allows; returns its name. Raises `LabError` while another is under way."""
    rows = runs.listing(runs_dir) if runs_dir.is_dir() else []
    if drafts(runs_dir) or queueing.read(runs_dir)["waiting"] or any(row["state"] in runs.LIVE for row in rows):
        raise LabError("one run at a time: watch the one that is running, or come back in a few minutes")
    taken = {row["name"] for row in rows}
    name = next(f"quick-{n}" for n in range(1, 10_000) if f"quick-{n}" not in taken)
    start(runs_dir, name, recipe(DEMO_RECIPE))
    return name


def drafts(runs_dir: Path) -> dict[str, str | None]:
    """Name -> why it was refused (None: still being prepared) of every run that was started and has no folder yet."""
    for child in list(_children):
        if child.poll() is not None:
            _children.remove(child)
    found: dict[str, str | None] = {}
    for path in sorted((runs_dir / ".drafts").glob("*.json")):
        refused = path.with_suffix(".error")
        if refused.exists():
            found[path.stem] = refused.read_text(encoding="utf-8")
        elif (runs_dir / path.stem / "config.json").exists():
            continue
        else:
            found[path.stem] = None if _lives(path.with_suffix(".pid")) else _last_words(path.with_suffix(".log"))
    return found


def _lives(pid: Path) -> bool:
    try:
        process = psutil.Process(int(pid.read_text()))
        return process.status() != psutil.STATUS_ZOMBIE and "app.create" in process.cmdline()
    except FileNotFoundError:
        return True  # the process is being started right now
    except (ValueError, psutil.Error):
        return False


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return f"its preparation ended early: {lines[-1]}" if lines else "its preparation ended without a word"


def dismiss(runs_dir: Path, name: str) -> None:
    """Forget a refused draft."""
    if name in drafts(runs_dir):
        for ending in ("json", "error", "pid", "log"):
            (runs_dir / ".drafts" / f"{name}.{ending}").unlink(missing_ok=True)


def draft_settings(runs_dir: Path, name: str) -> dict[str, Any]:
    """The settings of a draft, to be mended; raises `LabError` if there is none."""
    if name not in drafts(runs_dir):
        raise LabError(f"there is no draft {name}")
    return json.loads((runs_dir / ".drafts" / f"{name}.json").read_text(encoding="utf-8"))


def resume(runs_dir: Path, name: str) -> None:
    """Queue a run that was stopped, failed or died, or never started; it continues where it was."""
    queueing.enqueue(own(runs_dir, name))
    queueing.wake(runs_dir)


def stop(runs_dir: Path, name: str) -> bool:
    """Ask a live or starting run to stop after its step, or take it out of the queue; False if it is none of these."""
    return queueing.stop(own(runs_dir, name))


def move(runs_dir: Path, name: str, by: int) -> None:
    """Move a waiting run in the queue."""
    queueing.move(own(runs_dir, name), by)


def delete(runs_dir: Path, name: str) -> None:
    """Remove a run for good."""
    queueing.delete(own(runs_dir, name))


def own(runs_dir: Path, name: str) -> Path:
    """The folder of a run in `runs_dir`; raises `LabError` for recorded runs and for names that do not exist."""
    folder = store.folder(runs_dir, name)
    if folder.parent != runs_dir:
        raise LabError(f"{name} is a recording that ships with the lab: duplicate it to run it yourself")
    return folder


def size(folder: Path) -> int:
    """Bytes of a run folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def state(runs_dir: Path, name: str, queue: dict[str, Any]) -> str:
    """The run's state for people: as in its folder, but `starting`, `stopping`, and `ready` where it is not queued."""
    folder = store.folder(runs_dir, name)
    found = store.status(folder)["state"]
    if found in runs.LIVE:
        return "stopping" if runs.asked_to_stop(folder) else found
    if name == queue["current"] and found != "done" and queueing.working(runs_dir):
        return "stopping" if queue["halt"] else "starting"
    if name in queue["waiting"]:
        return "queued"
    return "ready" if found == "queued" else found
