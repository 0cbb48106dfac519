"""A corpus of malformed inputs through the real commands: one line that says what is wrong, exit code 2, nothing left.

tests/data/malformed.jsonl has one input a line: `kind` (what is malformed: see KINDS), `content` (a text, or a list of
texts and [text, times]) and `said`, a part of the line that must come.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT
from fake_server import fake, quick

from labkit import cli, pocket, runs, spm
from labkit.config import recipe
from labkit.generation import Request, Settings
from labkit.records import LabError, Problem

CORPUS = [json.loads(line) for line in (ROOT / "tests" / "data" / "malformed.jsonl").read_text().splitlines()]
QUICK = ("distill", "x", "--recipe", "pocket-quick")
ROW = json.dumps({"question": "What is 2 + 2?", "answer": "#### 4"}) + "\n"
OTHER = json.dumps({"question": "What is 3 + 3?", "answer": "#### 6"}) + "\n"
ARGUMENTS = {  # what is malformed is a part of the command line
    "set": lambda text: [*QUICK, "--set", text],
    "name": lambda text: ["distill", "--recipe", "pocket-quick", "--", text],
    "benchmarks": lambda text: [*QUICK, f"--benchmarks={text}"],
    "folder": lambda text: [*QUICK, "--data", "data", f"--benchmarks={text}"],
    "shard": lambda text: ["sample", "x", f"--shard={text}"],
    "sweep": lambda text: ["ablate", "x", f"--sweep={text}"],
    "model": lambda text: [*QUICK, "--set", f"teacher={text}"],
}
FILES = {  # what is malformed is a file: where it is written, and the command that reads it
    "question": ("own.jsonl", [*QUICK, "--benchmarks", "own.jsonl"]),
    "csv": ("own.csv", [*QUICK, "--benchmarks", "own.csv"]),
    "traces": ("t.jsonl", [*QUICK, "--data", "data", "--benchmarks", "gsm8k", "--set", "teacher=traces:t.jsonl"]),
    "recipe": ("own.yaml", ["distill", "x", "--recipe", "own.yaml"]),
    "variants": ("own.yaml", ["methods", "x", "--recipe", "own.yaml"]),
    "config": ("runs/old/config.json", ["show", "old"]),
    "scores": ("runs/old/scores.jsonl", ["show", "old"]),
}
BENCHMARKS = ("gsm8k", "arc_challenge", "strategyqa", "openbookqa", "medqa_usmle_4opt")  # a row of the hub's shape
BINARY = {"spm": "tokenizer.model", "gguf": "m.gguf"}  # content in hexadecimal
KINDS = {*ARGUMENTS, *FILES, *BENCHMARKS, *BINARY, "reply"}


def content_of(case):
    """The malformed input itself."""
    parts = [case["content"]] if isinstance(case["content"], str) else case["content"]
    return "".join(part if isinstance(part, str) else part[0] * part[1] for part in parts)


def command(case, folder: Path):
    """Prepare `folder` with the malformed input; returns the arguments of the command that meets it."""
    kind, text = case["kind"], content_of(case)
    data = folder / "data" / (kind if kind in BENCHMARKS else "gsm8k")
    data.mkdir(parents=True)
    (data / "train.jsonl").write_text(text + "\n" if kind in BENCHMARKS else ROW)
    (data / "test.jsonl").write_text(text + "\n" if kind in BENCHMARKS else OTHER)
    if kind in BENCHMARKS:
        return [*QUICK, "--data", "data", "--benchmarks", kind]
    if kind in ARGUMENTS:
        return ARGUMENTS[kind](text)
    if kind == "gguf":
        (folder / "m.gguf").write_bytes(bytes.fromhex(text))
        return [*QUICK, "--set", "teacher=gguf:m.gguf"]
    where, arguments = FILES[kind]
    if where.startswith("runs/"):
        runs.create(
            folder / "runs" / "old", recipe("pocket-quick"), [Problem("q/test/0", "q", "test", "?", "text", "a")]
        )
    (folder / where).write_text(text + "\n" if kind == "scores" else text, errors="surrogatepass")
    return arguments


def refusal(case, folder: Path, call):
    """The line that the malformed input is refused with; `call` runs a command: (exit code, stderr)."""
    if case["kind"] == "reply":
        with fake(lambda body, number: content_of(case).encode()) as (address, _), pytest.raises(LabError) as refused:
            quick(address, retries=0).generate([Request("x/test/0", "?", ("0",))], Settings(0.0, max_new_tokens=8))
        return str(refused.value)
    if case["kind"] == "spm":
        (folder / "tokenizer.model").write_bytes(bytes.fromhex(content_of(case)))
        with pytest.raises(LabError) as refused:
            spm.fast(spm.read(folder / "tokenizer.model"))
        return str(refused.value)
    code, err = call(command(case, folder))
    assert code == 2, err
    assert "Traceback" not in err
    assert not (folder / "runs" / "x").exists()
    return err


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(arguments):
        monkeypatch.setattr(sys, "argv", ["labkit", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_malformed_input_is_refused_in_one_line(kind, call, tmp_path, monkeypatch):
    for number, case in enumerate(one for one in CORPUS if one["kind"] == kind):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        line = refusal(case, folder, call).strip()
        assert case["said"] in line, (case, line[-600:])
        assert len(line) < 800, line
        assert not any(ord(one) < 32 or 0x7F <= ord(one) < 0xA0 for one in line), (case, line)


def test_a_sample_is_refused_by_the_installed_command_too(tmp_path):
    for kind in ("question", "set", "config"):
        case = next(one for one in CORPUS if one["kind"] == kind)
        folder = tmp_path / kind
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "labkit", *command(case, folder)], cwd=folder, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 2 and case["said"] in done.stderr, done.stderr
        assert sum(line.startswith("labkit: ") for line in done.stderr.splitlines()) == 1
        assert "Traceback" not in done.stderr


def test_the_corpus_is_large_and_has_no_doubles():
    assert len(CORPUS) >= 300 and set(Counter(one["kind"] for one in CORPUS)) == KINDS
    assert len({json.dumps([one["kind"], one["content"]]) for one in CORPUS}) == len(CORPUS)


def test_a_folder_whose_words_are_damaged_is_named_by_the_converter(call, tmp_path):
    shutil.copytree(pocket.path("student-neox"), tmp_path / "model")
    (tmp_path / "model" / "tokenizer.model").write_bytes(b"\x08" + b"\xff" * 100)
    code, err = call(["convert-internlm2", "model", "out"])
    assert code == 2 and "Traceback" not in err and not (tmp_path / "out").exists()
