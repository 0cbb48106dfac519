"""Ground that fails: a disk of a few hundred kilobytes, a folder nobody may write, a run of seconds to try them on."""

import os
import subprocess
from contextlib import contextmanager

import pytest

from labkit import distill
from labkit.config import recipe

# one benchmark, one chunk per two questions, a checkpoint every other step: seconds, and every writer
SMALL = {"benchmarks": "pocket_arc", "problems": 4, "test_problems": 4, "chunk": 2, "k": 2, "max_draws": 4, "batch": 2,
         "checkpoint_steps": 2, "epochs": 2, "max_new_tokens": 64}  # fmt: skip
SAME = ("problems.jsonl", "scores.jsonl", "traces/*.jsonl", "triplets/*.jsonl", "answers/*.jsonl")


def small(folder, **changes):
    """A prepared run, not begun."""
    distill.prepare(folder, recipe("pocket-quick", {**SMALL, **changes}))
    return folder


def same(folder):
    """The bytes that no fault may change."""
    return {str(path.relative_to(folder)): path.read_bytes() for part in SAME for path in sorted(folder.glob(part))}


def _mount(*arguments):
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip() or 'not permitted'}")


@contextmanager
def disk(folder, kilobytes):
    """`folder` as a disk of its own of that size; yields a function that changes its size or makes it read-only."""
    if os.geteuid():
        pytest.skip("only root can mount a small disk")
    folder.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "labkit-test", str(folder))
    try:
        yield lambda options: _mount("-o", f"remount,{options}", str(folder))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
