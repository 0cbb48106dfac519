"""What the pages read: run folders by name, and an index of every JSON Lines file so that 100,000 traces page at once.

An index holds, per line, its byte offset and the few numbers that filters and charts need. It is made on first read,
kept under the run's `.index/`, extended when the file has grown and rebuilt when it is another file.
"""

from __future__ import annotations

import json
import os
import zlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from labkit import runs
from labkit.config import RunConfig
from labkit.records import OUTCOMES, LabError, Problem, Record, Score, Trace, Triplet, from_json

DEMO = Path(__file__).parent / "demo-run"
USES = ("kept", "near-copy", "loose", "surplus", "other")
SIDES = ("teacher", "student")
MANY = 20_000  # runs whose settings, states and scores are kept at hand
TAIL = 256  # bytes before the end of what is indexed, whose checksum tells a grown file from another one

Columns = dict[str, np.ndarray]
Reader = TypeVar("Reader", bound=Callable[..., Any])


@dataclass(frozen=True)
class Index:
    """One file's lines as columns; `names` are the problem ids that `problem` counts in, `models` likewise."""

    path: Path
    columns: Columns
    names: tuple[str, ...]
    models: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.columns["offset"])


# --- folders ---------------------------------------------------------------------------------------------------------


def folders(runs_dir: Path) -> dict[str, Path]:
    """Name -> folder of every run that can be shown, newest first; the recorded run that ships with the app is last."""
    paths = [path for path in runs_dir.glob("*/config.json") if runs.is_name(path.parent.name)]
    made = [(_stamp(path), path.parent) for path in paths]
    found = {where.name: where for _, where in sorted(made, key=lambda one: one[0], reverse=True)}
    if (DEMO / "config.json").exists():
        found.setdefault(DEMO.name, DEMO)
    return found


def folder(runs_dir: Path, name: str) -> Path:
    """The folder of a run that exists; raises `LabError` for any other name, whatever is in it."""
    if runs.is_name(name) and (runs_dir / name / "config.json").exists():
        home = runs_dir.resolve()
        if outside := [path for path in _links(runs_dir / name) if not path.resolve().is_relative_to(home)]:
            raise LabError(f"run {name}: {outside[0].name} is a link out of {home}: nothing of this run is shown")
        return runs_dir / name
    if name == DEMO.name and (DEMO / "config.json").exists():
        return DEMO
    raise LabError(f"there is no run {name!r} here" if name else "there are no runs here yet")


def _links(where: Path) -> Iterator[Path]:
    """The run's folder, and what lies in it, as far as they are links: a folder from elsewhere may show any file."""
    if where.is_symlink():
        yield where
    with suppress(FileNotFoundError):  # a run that is alive renames and removes
        for folder in (where, *(one.path for one in os.scandir(where) if one.is_dir(follow_symlinks=False))):
            yield from (Path(one.path) for one in os.scandir(folder) if one.is_symlink())


def newest(most: int) -> Callable[[Reader], Reader]:
    """Keeps what `read(path, stamp)` returned for each path's newest stamp, and for `most` paths: a run that is
    polled while it grows leaves no older states behind."""

    def keeping(read: Reader) -> Reader:
        known: dict[Path, tuple[Any, Any]] = {}

        @wraps(read)
        def found(path: Path, stamp: Any) -> Any:
            kept = known.get(path)
            if kept is None or kept[0] != stamp:
                kept = stamp, read(path, stamp)
            known.pop(path, None)
            known[path] = kept
            for old in list(known)[:-most]:
                known.pop(old, None)
            return kept[1]

        found.known, found.cache_clear = known, known.clear
        return found

    return keeping


def config(where: Path) -> RunConfig:
    """The run's settings, read again only when the file has changed."""
    return _config(where, _stamp(where / "config.json"))


@newest(MANY)
def _config(where: Path, stamp: tuple[int, int]) -> RunConfig:
    return runs.load_config(where)


def status(where: Path) -> dict[str, Any]:
    """The run's status, read again only when the file has changed, or its process may have ended."""
    found = _status(where, _stamp(where / "status.json"))
    return runs.status(where) if found["state"] in (*runs.LIVE, "died") else found


@newest(MANY)
def _status(where: Path, stamp: tuple[int, int]) -> dict[str, Any]:
    return runs.status(where)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return stat.st_mtime_ns, stat.st_size


def stamp(*paths: Path) -> str:
    """Changes when any of the files does: what a tick compares before it redraws anything."""
    return json.dumps([_stamp(path) for path in paths])


def problems(where: Path) -> dict[str, Problem]:
    """Problem id -> problem, in the run's order."""
    return _problems(where, _stamp(where / "problems.jsonl"))


@newest(16)
def _problems(where: Path, stamp: tuple[int, int]) -> dict[str, Problem]:
    found = Problems({problem.id: problem for problem in runs.records(where, "problems.jsonl", Problem)})
    found.path = where / "problems.jsonl"
    return found


class Problems(dict[str, Problem]):
    """Problems by id; one that the run's other files name and this one has lost is a `LabError`."""

    path: Path

    def __missing__(self, name: str) -> Problem:
        raise LabError(f"{self.path}: {name} is not in it any more: restore it")


def scores(where: Path) -> list[Score]:
    """All scores of the run so far."""
    return _scores(where, _stamp(where / "scores.jsonl"))


@newest(MANY)
def _scores(where: Path, stamp: tuple[int, int]) -> list[Score]:
    return runs.records(where, "scores.jsonl", Score)


def events(where: Path, kind: str) -> list[dict[str, Any]]:
    """The run's events of one kind, the newest of each stage or epoch (a resumed run repeats some)."""
    found = {}
    for row in runs.rows(where / "events.jsonl"):
        if row.get("event") == kind:
            found[row.get("stage", row.get("epoch"))] = row
    return list(found.values())


# --- index -----------------------------------------------------------------------------------------------------------


def _trace_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "outcome": OUTCOMES.index(row["outcome"]), "use": USES.index(row["use"]), "side": SIDES.index(row["side"]),
        "epoch": row["epoch"], "draw": row["draw"], "tokens": row["tokens"], "_model": row["model"],
    }  # fmt: skip


def _triplet_row(row: dict[str, Any]) -> dict[str, Any]:
    source = -1 if row["rejected"] is None else row["rejected_epoch"] or 0
    return {"source": source, "teacher": row["rejected_side"] == "teacher", "draw": row["draw"]}


TEXTS = {  # where the models' words begin and end in a line, its keys being in field order
    "traces": (b'"text": "', b'", "outcome": '),
    "triplets": (b'"chosen": "', b'"chosen_draw": '),
}
READERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"traces": _trace_row, "triplets": _triplet_row}


def index(path: Path) -> Index:
    """The index of `traces/*.jsonl` or `triplets/*.jsonl`, up to the last whole line; `LabError` if damaged or gone."""
    if not path.exists():
        raise LabError(f"{path}: is gone")
    return _index(path, _stamp(path))


@newest(64)
def _index(path: Path, stamp: tuple[int, int]) -> Index:
    known = _load(path, stamp)
    if known is not None and known[1] == stamp[1]:
        return known[0]
    built, whole = _extended(path, *(known or (None, 0)))
    _save(built, whole)
    return built


def _extended(path: Path, old: Index | None, start: int) -> tuple[Index, int]:
    """The index with the lines after byte `start`, and the byte after the last whole line."""
    names = {name: i for i, name in enumerate(old.names if old else problems(path.parent.parent))}
    models = {name: i for i, name in enumerate(old.models if old else ())}
    found: dict[str, list[Any]] = {}
    for offset, line in _lines(path, start):
        try:
            row = json.loads(line)
            fields = {**READERS[path.parent.name](row), "offset": offset}
            fields["problem"] = names.setdefault(row["problem"], len(names))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise LabError(f"{path}, byte {offset}: damaged line ({error!r})") from None
        fields["model"] = models.setdefault(fields.pop("_model", ""), len(models))
        for name, value in fields.items():
            found.setdefault(name, []).append(value)
        start = offset + len(line)
    empty = {"offset": [], "problem": [], "model": [], "outcome": [], "use": [], "side": [], "epoch": [], "draw": [],
             "tokens": [], "source": [], "teacher": []}  # fmt: skip
    fresh = {name: np.array(values, np.int64) for name, values in (found or empty).items()}
    if old is not None and len(old):
        fresh = {name: np.concatenate([column, fresh.get(name, column[:0])]) for name, column in old.columns.items()}
    return Index(path, fresh, tuple(names), tuple(models)), start


def _lines(path: Path, start: int) -> Iterator[tuple[int, bytes]]:
    with open(path, "rb") as stream:
        stream.seek(start)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            yield start, line
            start += len(line)


def _file(path: Path) -> Path:
    return path.parent.parent / ".index" / f"{path.parent.name}-{path.stem}.npz"


def _checksum(path: Path, end: int) -> int:
    with open(path, "rb") as stream:
        stream.seek(max(0, end - TAIL))
        return zlib.crc32(stream.read(min(end, TAIL)))


def _save(built: Index, whole: int) -> None:
    stat = built.path.stat()
    mark = np.array([whole, _checksum(built.path, whole), stat.st_mtime_ns if stat.st_size == whole else 0])
    new = _file(built.path).with_suffix(".tmp")
    try:
        new.parent.mkdir(exist_ok=True)
        with open(new, "wb") as stream:
            np.savez(stream, mark=mark, names=np.array(built.names), models=np.array(built.models), **built.columns)
        new.replace(_file(built.path))
    except OSError:
        return  # a read-only folder is indexed anew in each server


def _load(path: Path, stamp: tuple[int, int]) -> tuple[Index, int] | None:
    """The saved index and the bytes it covers, if the file still begins with them."""
    try:
        with np.load(_file(path), allow_pickle=False) as saved:
            columns = dict(saved)
    except (OSError, ValueError, EOFError):
        return None
    whole, checksum, written = (int(value) for value in columns.pop("mark"))
    names, models = (tuple(columns.pop(key).tolist()) for key in ("names", "models"))
    same = written == stamp[0] if stamp[1] == whole else stamp[1] > whole
    if not same or checksum != _checksum(path, whole):
        return None
    return Index(path, columns, names, models), whole


def read(found: Index, kind: type[Record], lines: np.ndarray) -> list[Record]:
    """The records at some lines of an indexed file."""
    records = []
    with open(found.path, "rb") as stream:
        for offset in found.columns["offset"][lines]:
            stream.seek(int(offset))
            try:
                records.append(from_json(kind, json.loads(stream.readline())))
            except (LabError, ValueError, TypeError) as error:
                raise LabError(f"{found.path}, byte {offset}: {error}") from None
    return records


def containing(found: Index, needle: str) -> np.ndarray:
    """Mask of the lines whose text holds `needle`, whatever the case of its letters (ASCII)."""
    mask = np.zeros(len(found), bool)
    raw = found.path.read_bytes().lower()
    wanted = json.dumps(needle, ensure_ascii=False)[1:-1].encode("utf-8", "backslashreplace").lower()
    starts, at = found.columns["offset"], raw.find(wanted)
    begin, end_mark = TEXTS[found.path.parent.name]
    while at >= 0:
        line = int(np.searchsorted(starts, at, "right")) - 1
        end = int(starts[line + 1]) if line + 1 < len(starts) else len(raw)
        row = raw[starts[line] : end]
        mask[line] = wanted in row[row.find(begin) : row.find(end_mark)]
        at = raw.find(wanted, end)
    return mask


def traces(where: Path) -> list[Index]:
    """Indexes of the run's trace files: the teacher's first, then the student's by epoch."""
    found = [index(path) for path in (where / "traces").glob("*.jsonl") if path.stat().st_size]
    found = [one for one in found if len(one)]
    return sorted(found, key=lambda one: (one.columns["side"][0], one.columns["epoch"][0], one.path.name))


def traces_of(where: Path, problem: str) -> list[Trace]:
    """Every trace of one problem, in the order of stages and draws."""
    found: list[Trace] = []
    for one in traces(where):
        if problem in one.names:
            found += read(one, Trace, np.flatnonzero(one.columns["problem"] == one.names.index(problem)))
    return found


def epochs(where: Path) -> list[int]:
    """Epochs whose triplets are written."""
    stems = [path.stem.removeprefix("epoch-") for path in (where / "triplets").glob("epoch-*.jsonl")]
    return sorted(int(stem) for stem in stems if stem.isdigit())


def triplets(where: Path, epoch: int) -> Index:
    """Index of an epoch's triplets."""
    return index(where / "triplets" / f"epoch-{epoch}.jsonl")


def triplet(found: Index, line: int) -> Triplet:
    """One triplet of an epoch."""
    return read(found, Triplet, np.array([line]))[0]


def metrics(where: Path) -> dict[str, np.ndarray]:
    """The training metrics as columns over steps; NaN where a step had none."""
    return _metrics(where / "metrics.jsonl", _stamp(where / "metrics.jsonl"))


@newest(8)
def _metrics(path: Path, stamp: tuple[int, int]) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    with _reading:  # tabs ask at the same time, and one reader leaves to the next what it has read
        known = _grown.pop(path, None)
        if known is None or _stamp(path)[1] < known.size or not _starts_same(path, known):
            known = _Grown()
        _grown[path] = known
        for old in list(_grown)[:-8]:
            del _grown[old]
        for offset, line in _lines(path, known.size):
            known.add(_metric(path, offset, line), line)
        return {name: np.array(column) for name, column in known.columns.items()}


@dataclass
class _Grown:
    """What was read of a metrics file: 8 bytes a number, since a run of many steps may be watched for days."""

    size: int = 0  # bytes
    rows: int = 0
    last: bytes = b""  # line
    columns: dict[str, array[float]] = field(default_factory=dict)

    def add(self, row: dict[str, float], line: bytes) -> None:
        for name in [name for name in row if name not in self.columns]:
            self.columns[name] = array("d", [np.nan] * self.rows)
        for name, column in self.columns.items():
            column.append(row.get(name, np.nan))
        self.size, self.rows, self.last = self.size + len(line), self.rows + 1, line


_reading = Lock()
_grown: dict[Path, _Grown] = {}


def _metric(path: Path, offset: int, line: bytes) -> dict[str, float]:
    try:
        row = json.loads(line)
        return dict(zip(row, np.array(list(row.values()), np.float64), strict=True))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise LabError(f"{path}, byte {offset}: damaged line ({error!r})") from None


def _starts_same(path: Path, known: _Grown) -> bool:
    """Whether the line at the end of what was read is still there: a resumed run drops the steps it takes again."""
    with open(path, "rb") as stream:
        stream.seek(known.size - len(known.last))
        return stream.read(len(known.last)) == known.last
