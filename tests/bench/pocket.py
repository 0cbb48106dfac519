"""Where the time of the default run goes: wall seconds by stage, median of repeats.

    python -m tests.bench.pocket [--recipe pocket] [--repeats 3]

Stages of all epochs are added up; `load` is a process that starts, imports torch and loads the student. Progress
goes to stderr; the last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from labkit.config import recipe
from tests.bench import stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="pocket")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(options.repeats):
            found.append(stages.run(Path(folder) / f"run-{repeat}", recipe(options.recipe)))
            stages.note(f"{repeat + 1}: {found[-1]['wall']:.1f} s")
    kinds = list(dict.fromkeys(name.split()[0] for name in found[0]["seconds"]))
    shares = {
        kind: statistics.median(
            sum(s for name, s in one["seconds"].items() if name.split()[0] == kind) for one in found
        )
        for kind in kinds
    }
    stages.show({
        "recipe": options.recipe,
        "wall": round(statistics.median(one["wall"] for one in found), 1),
        "seconds": {kind: round(value, 2) for kind, value in shares.items()},
        "memory_gb": round(max(one["memory"] for one in found) / 1e9, 2),
        "repeats": options.repeats,
    })  # fmt: skip


if __name__ == "__main__":
    main()
