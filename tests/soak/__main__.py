"""Long tests on real processes: what is promised in SECURITY.md, measured.

    python -m tests.soak kills --count 50       # a real run, killed at random moments of every stage
    python -m tests.soak servers --count 6      # the dashboard's server killed; the whole machine
    python -m tests.soak many --count 5000      # thousands of runs in one folder
    python -m tests.soak polling --minutes 120  # twenty tabs on a live run
    python -m tests.soak redraws --count 200    # the same for the server's memory alone, in minutes

Progress goes to stderr, a Markdown table to stdout; `--out FILE.json` writes the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.soak import kills, many, polling, redraws, servers

COUNTS = {"kills": 50, "servers": 6, "many": 5000, "polling": 20, "redraws": 200}


def note(line: str) -> None:
    """Progress, for whoever waits."""
    print(line, file=sys.stderr, flush=True)


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The figures of a part."""
    count = given.count or COUNTS[given.part]
    if given.part == "kills":
        return kills.campaign(folder, count, given.seed, note)
    if given.part == "servers":
        return servers.campaign(folder, count, given.seed, note)
    if given.part == "many":
        return many.campaign(folder, count, note)
    if given.part == "redraws":
        return redraws.campaign(folder, count, note)
    return polling.campaign(folder, given.minutes, count, note)


def table(command: str, figures: dict[str, Any]) -> str:
    """Figures as rows of Markdown."""
    shown = {name: ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
             for name, value in figures.items()}  # fmt: skip
    rows = "\n".join(f"| {name} | {value} |" for name, value in shown.items())
    return f"| `{command}` | |\n|---|---|\n{rows}"


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=COUNTS)
    parser.add_argument("--count", type=int, help=f"kills, rounds, runs, tabs or steps; default: {COUNTS}")
    parser.add_argument("--minutes", type=float, default=120.0, help="how long to poll")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the figures as JSON too")
    given = parser.parse_args()
    command, began = " ".join(["python -m tests.soak", *sys.argv[1:]]), time.time()
    with tempfile.TemporaryDirectory() as folder:
        figures = {**measure(given, Path(folder)), "took s": round(time.time() - began)}
    print(table(command, figures))
    if given.out:
        given.out.write_text(json.dumps({"command": command, **figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
