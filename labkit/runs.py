"""The run folder, the only interface between a run and whoever looks at it: create, append, read, list, start, stop.

Text is JSON Lines. Work is committed in units: lines are appended and flushed to disk, then `commits.json` is replaced
with the file's new length and the number of units done. Whatever a kill leaves beyond that length is cut off when the
run continues, so a finished run has the same bytes as one never interrupted.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from labkit.config import ADJUSTABLE, RunConfig, configure
from labkit.records import SCHEMA, LabError, Problem, Record, from_json, to_json

LIVE = ("sampling", "training", "evaluating")
STALE = 300  # seconds without a heartbeat after which a run on another machine counts as died


class Stopped(Exception):
    """The run was asked to stop; everything finished is on disk."""


def folder_of(runs_dir: Path, name: str) -> Path:
    """The folder of a run; raises `LabError` for a name that is not letters, digits, `.`, `_`, `-`."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name) or name.endswith(".new"):
        raise LabError(
            f"run name {name!r}: use letters, digits, '.', '_' and '-', at most 100, not a dot or dash first"
        )
    return runs_dir / name


def create(folder: Path, config: RunConfig, problems: Iterable[Problem]) -> None:
    """A new run folder with its settings and questions; it appears whole or not at all."""
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        replace(new / "config.json", json.dumps({"schema": SCHEMA, **config.model_dump(mode="json")}, indent=1) + "\n")
        replace(new / "problems.jsonl", "".join(to_json(problem) + "\n" for problem in problems))
        write_status(new, state="queued")
        new.rename(folder)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        raise


def check_same(folder: Path, config: RunConfig) -> None:
    """Raises `LabError` if an existing run has other settings than `config`."""
    old, new = load_config(folder).model_dump(), config.model_dump()
    changed = [field for field in new if old[field] != new[field] and field != "recipe"]
    if changed:
        field = changed[0]
        raise LabError(
            f"run {folder.name} exists with {field} = {old[field]}, not {new[field]}: choose another name, "
            f"or continue it with its own settings by `labkit distill {folder.name}`"
        )


def adjust(folder: Path, changes: dict[str, Any]) -> None:
    """Change settings of an existing run that do not decide what it asks for; raises `LabError` for others."""
    if fixed := sorted(set(changes) - ADJUSTABLE):
        raise LabError(
            f"run {folder.name} exists: {fixed[0]} cannot change any more (only {', '.join(sorted(ADJUSTABLE))} can): "
            "continue it without, or choose another name"
        )
    config = configure({**load_config(folder).model_dump(), **changes})
    replace(folder / "config.json", json.dumps({"schema": SCHEMA, **config.model_dump(mode="json")}, indent=1) + "\n")


def load_config(folder: Path) -> RunConfig:
    """The settings a run was created with."""
    values = _json(folder / "config.json", f"no run {folder.name} in {folder.parent}")
    if values.pop("schema", SCHEMA) > SCHEMA:
        raise LabError(f"{folder / 'config.json'}: written by a newer labkit: upgrade labkit")
    try:
        return configure(values)
    except LabError as error:
        raise LabError(f"{folder / 'config.json'}: {error}") from None


def _json(path: Path, missing: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LabError(missing) from None
    except ValueError as error:
        raise LabError(f"{path}: damaged ({error})") from None
    if not isinstance(value, dict):
        raise LabError(f"{path}: damaged (not an object)")
    return value


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    new = path.with_name(path.name + ".new")
    with open(new, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


# --- lines -----------------------------------------------------------------------------------------------------------


def append(folder: Path, file: str, records: Iterable[Any], done: int) -> None:
    """Append records as lines and commit them: `done` units of this file's work are finished."""
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    with open(path, "ab") as stream:
        stream.write("".join(to_json(record) + "\n" for record in records).encode("utf-8", "backslashreplace"))
        stream.flush()
        os.fsync(stream.fileno())
    commit(folder, file, done)


def commit(folder: Path, file: str, done: int) -> None:
    """Note that a file is whole as it is now, with `done` units of work in it."""
    commits = _commits(folder)
    commits[file] = {"bytes": (folder / file).stat().st_size, "done": done}
    replace(folder / "commits.json", json.dumps(commits, indent=1) + "\n")


def done(folder: Path, file: str) -> int:
    """Finished units of a file's work: questions sampled or answered, epochs scored."""
    return _commits(folder).get(file, {}).get("done", 0)


def _commits(folder: Path) -> dict[str, Any]:
    path = folder / "commits.json"
    return _json(path, "") if path.exists() else {}


def recover(folder: Path) -> None:
    """Cut every file back to what was committed and clear what a kill left half-written."""
    commits = _commits(folder)
    for path in [*folder.glob("*.new"), *folder.glob("*/*.new")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in [
        *folder.glob("traces/*"),
        *folder.glob("triplets/*"),
        *folder.glob("answers/*"),
        folder / "scores.jsonl",
    ]:
        file = str(path.relative_to(folder).as_posix())
        size, whole = path.stat().st_size if path.exists() else 0, commits.pop(file, {"bytes": 0})["bytes"]
        if size < whole:
            raise LabError(
                f"{path}: shorter than what was written ({size} of {whole} bytes): restore it or start a new run"
            )
        if size > whole:
            os.truncate(path, whole)
    if commits:
        raise LabError(f"{folder / next(iter(commits))}: is gone: restore it or start a new run")


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON lines of a file, also while it is being written: a half-written last line is left out."""
    if not path.exists():
        return
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith("\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise LabError(f"{path}, line {number}: not JSON ({error})") from None


def records(folder: Path, file: str, kind: type[Record]) -> list[Record]:
    """All records of one kind in a file of the run; empty if it is not there yet."""
    found = []
    for number, row in enumerate(rows(folder / file), 1):
        try:
            found.append(from_json(kind, row))
        except LabError as error:
            raise LabError(f"{folder / file}, line {number}: {error}") from None
    return found


def log_line(folder: Path, file: str, **fields: Any) -> None:
    """Append one line to events.jsonl or metrics.jsonl: the files that carry clock times."""
    with open(folder / file, "a", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(json.dumps({"time": round(time.time(), 3), **fields}, ensure_ascii=False) + "\n")


def keep_metrics(folder: Path, step: int) -> None:
    """Forget the metrics of steps after `step`, which are about to be taken again."""
    kept = [row for row in rows(folder / "metrics.jsonl") if row["step"] <= step]
    if (folder / "metrics.jsonl").exists():
        replace(folder / "metrics.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


# --- state -----------------------------------------------------------------------------------------------------------


def write_status(folder: Path, **changes: Any) -> None:
    """Merge `changes` into status.json, with a heartbeat."""
    path = folder / "status.json"
    old = _json(path, "") if path.exists() else {"schema": SCHEMA}
    replace(path, json.dumps({**old, **changes, "heartbeat": round(time.time(), 1)}, indent=1) + "\n")


def beat(folder: Path, **changes: Any) -> None:
    """A heartbeat with `changes`, at most one a second."""
    if abs(time.time() - (folder / "status.json").stat().st_mtime) > 1:
        write_status(folder, **changes)


def status(folder: Path) -> dict[str, Any]:
    """status.json, with state `died` where it says live but its process is gone."""
    found = _json(folder / "status.json", f"no run {folder.name} in {folder.parent}")
    if found.get("state") in LIVE and not _alive(found):
        found |= {
            "state": "died",
            "reason": f"its process ended without a word at stage {found.get('stage')}; resume it",
        }
    return found


def _alive(found: dict[str, Any]) -> bool:
    if found.get("host") != socket.gethostname():
        return time.time() - found.get("heartbeat", 0) < STALE
    return _process(found) is not None


def _process(found: dict[str, Any]) -> psutil.Process | None:
    """The run's own process: same pid *and* start time, since a pid may have been given to another program."""
    try:
        process = psutil.Process(found["pid"])
        same = abs(process.create_time() - found["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
        return process if same else None
    except (KeyError, psutil.Error):
        return None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """The right to write a run folder, for one process; SIGINT and SIGTERM then ask for a stop at the next step."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        owner = _json(folder / "status.json", "").get("pid")
        raise LabError(f"run {folder.name} is being written by process {owner}: wait for it or stop it") from None
    (folder / "stop").unlink(missing_ok=True)
    main = threading.current_thread() is threading.main_thread()  # only there can signal handlers be set
    handlers = {number: signal.signal(number, _on_signal(folder)) for number in (signal.SIGINT, signal.SIGTERM) if main}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        lock.release()


def _on_signal(folder: Path) -> Callable[[int, Any], None]:
    def asked(number: int, frame: Any) -> None:
        if asked_to_stop(folder):
            raise KeyboardInterrupt  # asked twice: now, losing the step in hand
        (folder / "stop").touch()

    return asked


def identity() -> dict[str, Any]:
    """Who writes a run now: goes into status.json."""
    return {"pid": os.getpid(), "started": psutil.Process().create_time(), "host": socket.gethostname()}


def asked_to_stop(folder: Path) -> bool:
    """Whether somebody asked this run to stop: by a signal, the dashboard, or `labkit stop`."""
    return (folder / "stop").exists()


def start(folder: Path) -> int:
    """Run (or continue) the folder's run in a process that outlives the caller; returns its pid. Output: log.txt."""
    command = [sys.executable, "-m", "labkit", "distill", folder.name, "--runs-dir", str(folder.parent)]
    with open(folder / "log.txt", "ab") as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    return child.pid


def stop(folder: Path) -> bool:
    """Ask a live run to stop after its step; False if it is not running."""
    if status(folder).get("state") not in LIVE:
        return False
    (folder / "stop").touch()
    return True


def listing(runs_dir: Path) -> list[dict[str, Any]]:
    """One row per run of a folder, newest first: name, state, method, models, epoch; a damaged run says so."""
    found = []
    for path in sorted(runs_dir.glob("*/config.json"), key=lambda path: -path.stat().st_mtime):
        folder = path.parent
        if folder.name.endswith(".new"):
            continue
        try:
            config, state = load_config(folder), status(folder)
        except LabError as error:
            found.append({"name": folder.name, "state": "damaged", "reason": str(error)})
            continue
        row = {"name": folder.name, "state": state.get("state"), "method": config.policy, "student": config.student}
        found.append(row | {"epoch": state.get("epoch", 0), "seed": config.seed, "reason": state.get("reason")})
    return found
