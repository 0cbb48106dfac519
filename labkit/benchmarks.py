"""The five benchmarks, the pocket ones and your own questions, all as `Problem`s.

One way in: rows with the hub's columns, from the hub, from `--data DIR/<benchmark>/<split>.jsonl`, or from one file of
your own (JSONL or CSV with `question`, `answer` and, for multiple choice, `choices`).
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import math
import random
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from labkit import pocket
from labkit.records import HALF, LabError, Problem, shown
from labkit.values import EDGE, LONGEST_NUMBER, is_correct

Row = dict[str, Any]
Fields = dict[str, Any]  # the Problem fields that a row decides: question, kind, answer, choices, labels


@dataclass(frozen=True)
class Source:
    """Where a benchmark lives on the hub and how one of its rows is read."""

    hub: str
    subset: str | None
    parse: Callable[[Row], Fields]
    note: str = ""


def _gsm8k(row: Row) -> Fields:
    gold = str(row["answer"]).rpartition("####")[2].strip().replace(",", "")
    return {"question": row["question"], "kind": "number", "answer": _decimal(gold)}


def _labelled(question: str, choices: Row, gold: str) -> Fields:
    # 22 of ARC-Challenge's test rows label their choices 1-4, a few have 3 or 5: gold is the position of its label
    texts, labels = list(choices["text"]), [str(label) for label in choices["label"]]
    if str(gold) not in labels:
        raise ValueError(f"answer {shown(gold)} is not among the choices' labels {', '.join(labels)}")
    return _choice(question, texts, labels.index(str(gold)))


def _choice(question: str, texts: list[str], gold: int) -> Fields:
    if not 2 <= len(texts) <= 26:
        raise ValueError(f"{len(texts)} choices: 2 to 26 are allowed")
    if not all(isinstance(text, str | int | float) and str(text).strip() for text in texts):
        raise ValueError("a choice is empty or not text")
    if gold >= len(texts):
        raise ValueError(f"the right answer is choice {gold + 1} of {len(texts)}")
    labels = tuple(string.ascii_uppercase[: len(texts)])
    choices = tuple(str(text).strip() for text in texts)
    return {"question": question, "kind": "choice", "answer": labels[gold], "choices": choices, "labels": labels}


def _strategyqa(row: Row) -> Fields:
    if not isinstance(row["answer"], bool):
        raise ValueError(f"answer {shown(row['answer'])} is not true or false")
    return {"question": row["question"], "kind": "boolean", "answer": "yes" if row["answer"] else "no"}


def _medqa(row: Row) -> Fields:
    options = {key: text for key, text in row["options"].items() if text is not None}
    return _labelled(row["question"], {"text": options.values(), "label": options.keys()}, row["answer_idx"])


def _own(row: Row) -> Fields:
    """Your own columns: question, answer, and optionally choices (a list, or texts separated by `|`)."""
    choices, word = row.get("choices"), _word(row["answer"])
    if isinstance(choices, str):
        choices = [text.strip() for text in choices.split("|") if text.strip()]
    if choices:
        if not isinstance(choices, list):
            raise ValueError("choices are neither a list nor texts separated by |")
        return _choice(row["question"], choices, _position(choices, word))
    if word.lower() in {"yes", "no", "true", "false"}:
        return {
            "question": row["question"],
            "kind": "boolean",
            "answer": "yes" if word.lower() in {"yes", "true"} else "no",
        }
    if re.fullmatch(r"[-+]?\d+(,\d+)+(\.\d+)?", word) and not re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", word):
        raise ValueError(f"answer {shown(word)} may be a decimal or a list: write 1.5 for a decimal, '1, 5' for a list")
    if re.fullmatch(r"[-+]?[\d,]*\.?\d+", word):
        return {"question": row["question"], "kind": "number", "answer": _decimal(word.replace(",", ""))}
    return {"question": row["question"], "kind": "text", "answer": word}


def _word(answer: Any) -> str:
    """An answer as text; a number of JSON without an exponent."""
    if answer is None or isinstance(answer, list | dict):
        raise ValueError(f"answer {shown(answer)} is not a text, a number or true/false")
    if isinstance(answer, float):
        if not math.isfinite(answer):
            raise ValueError(f"answer {answer} is not a number")
        return f"{Decimal(repr(answer)):f}"
    return str(answer).strip()


def _position(choices: list[str], answer: str) -> int:
    letters = string.ascii_uppercase[: len(choices)]
    texts = [str(text).strip() for text in choices]
    if answer in texts:
        return texts.index(answer)
    if len(answer) == 1 and answer.upper() in letters:
        return letters.index(answer.upper())
    raise ValueError(
        f"answer {shown(answer)} is not among the choices: give a choice's text or its letter A-{letters[-1]}"
    )


def _decimal(text: str) -> str:
    if not re.fullmatch(r"[-+]?\d*\.?\d+", text):
        raise ValueError(f"answer {shown(text)} is not a number")
    return text.removeprefix("+")


BENCHMARKS: dict[str, Source] = {
    "medqa_usmle_4opt": Source("GBaker/MedQA-USMLE-4-options", None, _medqa),
    "arc_challenge": Source(
        "allenai/ai2_arc", "ARC-Challenge", lambda row: _labelled(row["question"], row["choices"], row["answerKey"])
    ),
    "strategyqa": Source(
        "ChilleD/StrategyQA",
        None,
        _strategyqa,
        "no public test labels: `test` is the fixed 1,603/687 cut of the public rows",
    ),
    "openbookqa": Source(
        "allenai/openbookqa", "main", lambda row: _labelled(row["question_stem"], row["choices"], row["answerKey"])
    ),
    "gsm8k": Source("openai/gsm8k", "main", _gsm8k),
}


def load(benchmark: str, split: str, data: str | None = None) -> list[Problem]:
    """All problems of one split; raises `LabError` naming the file, line and column of the first bad row."""
    if benchmark in pocket.BENCHMARKS:
        return pocket.problems(benchmark, split)
    if _is_file(benchmark):
        return _held_out(Path(benchmark), split)
    if data is not None:
        return _local(benchmark, split, Path(data))
    if benchmark not in BENCHMARKS:
        known = ", ".join([*BENCHMARKS, *pocket.BENCHMARKS])
        raise LabError(f"unknown benchmark {benchmark!r}: one of {known}; or a .jsonl/.csv file; or use --data FOLDER")
    return _problems(
        benchmark, split, _hub_rows(benchmark, split), BENCHMARKS[benchmark].parse, f"{benchmark} on the hub, row"
    )


def name_of(benchmark: str) -> str:
    """The benchmark's name in ids and tables: a question file goes by its stem."""
    return Path(benchmark).stem if _is_file(benchmark) else benchmark


def _is_file(benchmark: str) -> bool:
    return benchmark.endswith((".jsonl", ".csv"))


def _local(benchmark: str, split: str, data: Path) -> list[Problem]:
    folder = data / benchmark
    if Path(benchmark).name != benchmark or benchmark == "..":
        raise LabError(f"benchmark {benchmark!r}: the name of a folder in {data} is wanted, not a path")
    if not folder.is_dir():
        found = sorted(path.name for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
        raise LabError(
            f"--data {data}: no folder {benchmark!r} in it" + (f" (it has {', '.join(found)})" if found else "")
        )
    for path in (folder / f"{split}.jsonl", folder / f"{split}.csv"):
        if path.is_file():
            parse = BENCHMARKS[benchmark].parse if benchmark in BENCHMARKS else _own
            return _problems(benchmark, split, _file_rows(path), parse, f"{path}, line")
    raise LabError(f"{folder}: no {split}.jsonl or {split}.csv in it")


def _held_out(path: Path, split: str) -> list[Problem]:
    """A single file is cut by a hash of each question: a fifth is test, a tenth validation, the rest train."""
    problems = _problems(path.stem, split, _file_rows(path), _own, f"{path}, line")
    kept = [problem for problem in problems if _cut(problem.question) == split]
    if not kept:
        raise LabError(
            f"{path}: {len(problems)} questions leave none for the {split} split: add questions, or use --data"
        )
    return kept


def _cut(question: str) -> str:
    bucket = int(hashlib.sha256(_normal(question).encode()).hexdigest(), 16) % 10
    return {0: "test", 1: "test", 2: "validation"}.get(bucket, "train")


def _problems(
    benchmark: str, split: str, rows: Iterator[tuple[int, Row]], parse: Callable[[Row], Fields], where: str
) -> list[Problem]:
    problems = []
    for number, row in rows:
        try:
            fields = parse(row)
            if not isinstance(fields["question"], str) or not fields["question"].strip():
                raise ValueError("the question is empty or not text")
            name = f"{benchmark}/{split}/{len(problems)}"
            problems.append(_gradable(Problem(id=name, benchmark=benchmark, split=split, **fields)))
        except KeyError as error:
            found = shown(", ".join(map(str, row)))[1:-1]
            raise LabError(f"{where} {number}: column {error} is missing; found {found}") from None
        except (ValueError, LabError) as error:
            raise LabError(f"{where} {number}: {error}") from None
        except (TypeError, AttributeError) as error:
            raise LabError(f"{where} {number}: a column has another shape than in this benchmark ({error})") from None
    if not problems:
        raise LabError(f"{where.removesuffix(', line')}: there are no questions in it")
    return problems


def _gradable(problem: Problem) -> Problem:
    """The problem, if its gold answer can be right; ValueError for one that no answer matches, or that is not text."""
    if not problem.answer.strip(EDGE):
        raise ValueError("the answer is empty")
    if any(HALF.search(text) for text in (problem.question, problem.answer, *problem.choices)):
        raise ValueError("half a character (a lone surrogate) in it: save the file as UTF-8 again")
    if problem.kind == "number" and len(problem.answer) > LONGEST_NUMBER:
        raise ValueError(f"answer {shown(problem.answer)} has more than {LONGEST_NUMBER} digits")
    is_correct(problem.answer, problem)  # raises for a gold answer that is none of its kind
    return problem


def _file_rows(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    yield from _csv_rows(text, path) if path.suffix == ".csv" else _json_rows(text, path)


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, Row]]:
    reader = csv.DictReader(text.splitlines(keepends=True))
    try:
        for row in reader:
            yield reader.line_num, {key: value for key, value in row.items() if key is not None}
    except csv.Error as error:
        raise LabError(f"{path}, line {reader.line_num + 1}: not CSV ({error})") from None


def _json_rows(text: str, path: Path) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError: also an integer of thousands of digits
            raise LabError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise LabError(f"{path}, line {number}: expected an object with named columns")
        yield number, row


def _hub_rows(benchmark: str, split: str) -> Iterator[tuple[int, Row]]:
    source = BENCHMARKS[benchmark]
    try:
        return enumerate(hub_rows(source.hub, source.subset, split))
    except LabError as error:
        raise LabError(f"{benchmark}: {error}; offline, use --data FOLDER") from None


def hub_rows(name: str, subset: str | None, split: str) -> Iterator[Row]:
    """The rows of a split of a dataset on the hub or in a folder; raises `LabError` if they are not to be had."""
    try:
        datasets = importlib.import_module("datasets")  # takes a second, and only these rows need it
        return iter(datasets.load_dataset(name, subset, split=split))
    except Exception as error:  # the hub client raises dozens of kinds; all mean that the rows are not to be had
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise LabError(f"{name} could not be loaded ({reason})") from None


def draw(problems: list[Problem], n: int | None, seed: int | None) -> list[Problem]:
    """`n` of the problems in their own order, drawn by the seed; the same n for every method."""
    if n is None or n >= len(problems):
        return problems
    rng = random.Random(f"{seed}/problems/{problems[0].benchmark}/{problems[0].split}")
    return [problems[i] for i in sorted(rng.sample(range(len(problems)), n))]


def without_leaks(train: list[Problem], test: list[Problem]) -> list[Problem]:
    """The training problems that the test split does not ask too (spacing, case and the order of choices aside)."""
    asked = {_key(problem) for problem in test}
    return [problem for problem in train if _key(problem) not in asked]


def _key(problem: Problem) -> tuple[str, ...]:
    return (_normal(problem.question), *sorted(map(_normal, problem.choices)))


def _normal(text: str) -> str:
    return " ".join(text.split()).lower()
