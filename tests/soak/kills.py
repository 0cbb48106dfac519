"""A real run, killed at random moments of every stage and continued, must end as the one that nobody touched.

A kill is aimed at a stage: wait until the run is in it, then a random share of the time that the uninterrupted run
spent there, then SIGKILL. What is lost is the time from the last thing that stays (a commit, a checkpoint), or from
the start of the process, to the kill.
"""

from __future__ import annotations

import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from labkit import runs
from labkit.lines import read_object
from labkit.records import LabError

# small chunks and frequent checkpoints: many moments to be killed at, and through every stage
SETTINGS = {"benchmarks": "pocket_arc,pocket_gsm8k", "problems": 6, "test_problems": 8, "chunk": 3, "k": 2, "batch": 4,
            "max_draws": 8, "checkpoint_steps": 2, "epochs": 2}  # fmt: skip
SAME = ("config.json", "problems.jsonl", "scores.jsonl", "traces/*.jsonl", "triplets/*.jsonl", "answers/*.jsonl")
NEW, STARTING = "a new run", "starting"  # before there is a folder; before the process has opened it
STAGES = (NEW, STARTING, "loading", "before training", "teacher", "student-0", "epoch 1", "after epoch 1", "student-1",
          "epoch 2", "after epoch 2")  # fmt: skip


def same(folder: Path) -> dict[str, bytes]:
    """What must not differ between two runs, by file name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for part in SAME for path in folder.glob(part)}


def left_over(folder: Path) -> list[str]:
    """Names of temporary files and folders, in the run and beside it."""
    found = [*folder.parent.glob(f"{folder.name}*.new"), *folder.rglob("*.new"), *folder.rglob("*.tmp")]
    return [str(path) for path in [*found, *folder.glob("checkpoints/*"), *folder.glob("serving")]]


def start(folder: Path, settings: dict[str, Any] = SETTINGS) -> subprocess.Popen[bytes]:
    """The command that starts a run or continues it."""
    changes = [part for field, value in settings.items() for part in ("--set", f"{field}={value}")]
    command = [sys.executable, "-m", "labkit", "distill", folder.name, "--runs-dir", str(folder.parent)]
    with open(folder.parent / f"{folder.name}.log", "ab") as log:
        return subprocess.Popen([*command, "--recipe", "pocket-quick", *changes], stdout=log, stderr=log)


def stage(folder: Path, child: subprocess.Popen[bytes]) -> str:
    """Where a run is now that `child` continues."""
    try:
        status = read_object(folder / "status.json", "")
    except LabError:
        return NEW
    if status.get("pid") != child.pid:
        return STARTING
    named = "before training" if status.get("stage") == "after epoch 0" else status.get("stage")
    return named or status["state"]


def watch(child: subprocess.Popen[bytes], folder: Path, until: Callable[[str], bool]) -> dict[str, float]:
    """Follow a run until it ends or `until(stage)`; returns the time at which each stage was first seen."""
    seen: dict[str, float] = {}
    while child.poll() is None:
        now = stage(folder, child)
        seen.setdefault(now, time.time())
        if until(now):
            break
        time.sleep(0.002)
    return seen


def uninterrupted(folder: Path) -> dict[str, float]:
    """Run once in peace; seconds per stage."""
    child = start(folder)
    seen = watch(child, folder, lambda now: False)
    if child.wait():
        raise RuntimeError(f"the run did not end: see {folder}.log")
    times = [*seen.items(), ("end", time.time())]
    return {name: after - at for (name, at), (_, after) in pairwise(times)}


def kept_at(folder: Path) -> float:
    """When something was last written that a kill cannot take: a commit, or a checkpoint."""
    paths = [folder / "config.json", folder / "commits.json", *folder.glob("checkpoints/*[0-9]/position.json")]
    return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)


def kill_at(folder: Path, target: str, wait: float) -> dict[str, Any] | None:
    """Start the run, SIGKILL it `wait` seconds into a stage; None where it ended before."""
    began, child = time.time(), start(folder)
    watch(child, folder, lambda now: now in STAGES and STAGES.index(now) >= STAGES.index(target))
    with suppress(subprocess.TimeoutExpired):
        child.wait(wait)
    at, killed_in = time.time(), stage(folder, child)
    child.send_signal(signal.SIGKILL)
    if child.wait() != -signal.SIGKILL:
        return None
    if killed_in != NEW and (state := runs.status(folder)["state"]) not in ("died", "queued"):
        raise AssertionError(f"killed in {killed_in}, and its state reads {state}")
    return {"stage": killed_in, "lost": at - max(began, kept_at(folder))}


def campaign(folder: Path, kills: int, seed: int, note: Callable[[str], None]) -> dict[str, Any]:
    """`kills` kills over as many runs as it takes, each ended and compared; raises AssertionError for a difference."""
    spent = uninterrupted(folder / "whole")
    whole, rng = same(folder / "whole"), random.Random(seed)
    note(f"uninterrupted: {sum(spent.values()):.1f} s in {len(spent)} stages")
    made: list[dict[str, Any]] = []
    number = 0
    while len(made) < kills:
        number += 1
        run = folder / f"run-{number}"
        for target in [one for one in STAGES for _ in range(rng.choice((0, 1, 1, 2)))]:
            if len(made) < kills and (one := kill_at(run, target, rng.random() * spent.get(target, 0.5))):
                made.append({**one, "run": number})
                note(f"{len(made)}/{kills}: {run.name} killed in {one['stage']}, {one['lost']:.1f} s lost")
        if start(run).wait():
            raise AssertionError(f"{run.name} did not end after its kills: see {run}.log")
        if same(run) != whole:
            raise AssertionError(f"{run.name} has other bytes than the uninterrupted run")
        if left_over(run):
            raise AssertionError(f"{run.name} left {left_over(run)}")
    lost = [one["lost"] for one in made]
    return {
        "kills": len(made), "survived": len(made), "runs": number, "files compared": len(whole),
        "by stage": dict(Counter(one["stage"] for one in made)), "most kills of one run": _most(made),
        "lost, median s": round(statistics.median(lost), 2), "lost, most s": round(max(lost), 2),
        "uninterrupted s": round(sum(spent.values()), 1), "longest stage s": round(max(spent.values()), 1),
    }  # fmt: skip


def _most(made: list[dict[str, Any]]) -> int:
    return max(Counter(one["run"] for one in made).values())
