"""Work in a process of its own, forked from one that has imported what it needs: it takes no seconds to start."""

import os
import sys
import time
from functools import partial
from multiprocessing import get_context

from labkit import cli

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["labkit.distill", "labkit.crew"])


def start(work, log, **environment):
    """The process that does `work()`; what it says is added to the file `log`."""
    child = FORKS.Process(target=_do, args=(work, log, environment), daemon=True)
    child.start()
    return child


def _do(work, log, environment):
    os.environ.update(environment)
    with open(log, "ab", buffering=0) as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    work()


def distilling(folder, **environment):
    """The process of `labkit distill` on a prepared run; what it says is in said.txt beside the run's folder."""
    return start(partial(_distill, folder), folder.parent / "said.txt", **environment)


def _distill(folder):
    sys.argv = ["labkit", "distill", folder.name, "--runs-dir", str(folder.parent)]
    cli.main()


def said(folder):
    return (folder.parent / "said.txt").read_text()


def wait_for(child, happened, folder, moment=""):
    """Wait until something has happened in the run's folder; names the moment, and what the run said, if it ended."""
    while child.is_alive():
        try:
            if happened():
                return
        except (OSError, ValueError):  # a file that is being written
            pass
        time.sleep(0.002)
    raise AssertionError(f"the run ended before {moment or happened}: {said(folder)}")


def end(child, seconds=60):
    """Its exit code."""
    child.join(seconds)
    return child.exitcode
