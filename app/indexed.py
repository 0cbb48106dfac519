"""A run's trace and triplet files by index, so that 100,000 traces page at once.

An index holds, per line, its byte offset and the few numbers that filters and charts need. It is made on first read,
kept under the run's `.index/`, extended when the file has grown and rebuilt when it is another file.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from app.store import lines_from, newest, problems, stamp_of
from labkit.records import OUTCOMES, LabError, Record, Trace, Triplet, from_json

USES = ("kept", "near-copy", "loose", "surplus", "other")
SIDES = ("teacher", "student")
TAIL = 256  # bytes before the end of what is indexed, whose checksum tells a grown file from another one

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Index:
    """One file's lines as columns; `names` are the problem ids that `problem` counts in, `models` likewise."""

    path: Path
    columns: Columns
    names: tuple[str, ...]
    models: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.columns["offset"])


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
    return _index(path, stamp_of(path))


_indexing = Lock()


@newest(64)
def _index(path: Path, stamp: tuple[int, int]) -> Index:
    with _indexing:  # of two tabs that open a large file at once, the second finds what the first has saved
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
    for offset, line in lines_from(path, start):
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
        whole, checksum, written = (int(value) for value in columns.pop("mark"))
        names, models = (tuple(columns.pop(key).tolist()) for key in ("names", "models"))
    except Exception:  # missing, or damaged: numpy's reader fails on a flipped byte in a dozen ways
        return None
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
