"""Prepare a drafted run and queue it: the child process of the Start button, since checking models needs torch.

python -m app.create runs NAME
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from labkit import distill, queueing, runs
from labkit.config import configure
from labkit.records import LabError


def create(runs_dir: Path, name: str) -> None:
    """From `.drafts/NAME.json` to a queued run; a refusal is written beside the draft, in one line."""
    draft = runs_dir / ".drafts" / f"{name}.json"
    folder = runs.folder_of(runs_dir, name)
    try:
        distill.prepare(folder, configure(json.loads(draft.read_text(encoding="utf-8"))))
        queueing.enqueue(folder)
    except (LabError, OSError) as error:
        draft.with_suffix(".error").write_text(" ".join(str(error).split()), encoding="utf-8")
        return
    for ending in (".json", ".pid", ".log"):
        draft.with_suffix(ending).unlink(missing_ok=True)
    queueing.wake(runs_dir)


if __name__ == "__main__":
    create(Path(sys.argv[1]), sys.argv[2])
