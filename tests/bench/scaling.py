"""Time and memory per problem as the problems grow: sampling, pairing, one epoch, evaluation, reading the run folder.

    python -m tests.bench.scaling [--problems 100 1000 10000]

Off-policy ORPO on the generated benchmarks, two traces per question out of at most four draws, one epoch, half as many
test questions. Seconds per problem are of the stages alone, without starting the process; `growth` is the last size
over the first. Takes several minutes. Progress goes to stderr; the last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from labkit.config import recipe
from tests.bench import stages

STAGES = {
    "teacher": ("sample teacher",),
    "student": ("sample student-0",),
    "pair": ("pair 1",),
    "train": ("train 1",),
    "evaluate": ("evaluate 0", "evaluate 1"),
}


def measure(folder: Path, problems: int) -> dict[str, Any]:
    settings = {
        "problems": problems // 5,
        "test_problems": problems // 10,
        "k": 2,
        "max_draws": 4,
        "epochs": 1,
        "phi": 0,
    }
    found = stages.run(folder, recipe("pocket", settings))
    seconds = {kind: sum(found["seconds"][name] for name in names) for kind, names in STAGES.items()}
    seconds["read"] = stages.read(folder)
    row = {
        "problems": problems,
        "ms_per_problem": {kind: round(1e3 * value / problems, 3) for kind, value in seconds.items()},
        "ms_per_problem_together": round(1e3 * sum(seconds.values()) / problems, 3),
        "memory_gb": round(found["memory"] / 1e9, 2),
        "folder_mb": round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1),
    }
    stages.note(str(row))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, nargs="+", default=[100, 1000, 10000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(Path(folder) / f"run-{n}", n) for n in options.problems]
    first, *_, last = rows
    stages.show({
        "growth": round(last["ms_per_problem_together"] / first["ms_per_problem_together"], 2),
        "growth_by_stage": {
            kind: round(value / first["ms_per_problem"][kind], 2) for kind, value in last["ms_per_problem"].items()
        },
        "memory_growth": round(last["memory_gb"] / first["memory_gb"], 2),
        "sizes": rows,
    })  # fmt: skip


if __name__ == "__main__":
    main()
