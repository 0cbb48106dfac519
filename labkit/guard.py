"""Run a command that does not outlive whoever started it: `python -m labkit.guard COMMAND ARGUMENTS...`.

The starter holds the other end of this process's standard input. When it closes, by intention or because the starter
was killed, the command's whole process group is ended: first asked, then killed.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

GRACE = 10.0  # seconds between asking and killing


def main(command: list[str]) -> int:
    """The command's exit code; 0 where the starter let go."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        while child.poll() is None:
            readable, _, _ = select.select([sys.stdin], [], [], 0.2)
            if readable and not os.read(sys.stdin.fileno(), 1):
                return 0
        return child.returncode
    finally:
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """The command may be gone while its children are not: the group is what counts."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # asked twice, it still ends everybody
    _signal(child, signal.SIGTERM)
    until = time.monotonic() + GRACE
    while time.monotonic() < until and _signal(child, 0):
        child.poll()  # a finished one that nobody waited for would count as alive
        time.sleep(0.05)
    _signal(child, signal.SIGKILL)
    child.wait()


def _signal(child: subprocess.Popen[bytes], number: int) -> bool:
    """Whether anybody in the command's group was there to get it."""
    try:
        os.killpg(child.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    sys.exit(main(sys.argv[1:]))
