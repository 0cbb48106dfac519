"""A verifier in place of the gold answer: a function of one's own, or unit tests of generated code under limits."""

import json
import socket
import sys
import threading

import pytest

from labkit import distill, runs, verifiers
from labkit.config import recipe
from labkit.records import Answer, Completion, LabError, Problem, Trace

DOUBLE = Problem(
    "code/train/0", "code", "train", "Write double(x).", "text", "assert double(2) == 4\nassert double(-1) == -2"
)


def _said(code, finish="stop"):
    return Completion(f"Multiply by two.\n```python\n{code}\n```\nDone.", finish, 9)


def _outcome(code, finish="stop"):
    return verifiers.by_tests(_said(code, finish), DOUBLE)[0]


def test_code_is_judged_by_its_tests():
    outcome, reading = verifiers.by_tests(_said("def double(x):\n    return 2 * x"), DOUBLE)
    assert outcome == "correct" and reading.strict and reading.answer.startswith("def double")
    assert _outcome("def double(x):\n    return x * x") == "wrong"
    assert _outcome("def double(x:") == "wrong"
    assert _outcome("def double(x):\n    return 2 * x", "length") == "truncated"
    assert verifiers.by_tests(Completion("def double(x): return 2 * x", "stop", 9), DOUBLE)[0] == "unparsed"


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit(0)",
        "import os\nos._exit(0)",
        "import sys\nsys.exit()",
        "print('x' * 10**8)",
        "x = bytearray(10**9)",
        "import subprocess\nsubprocess.run(['true'])",
        "import os\nos.system('true')",
        "import os\nos.fork()",
        "import socket\nsocket.create_connection(('127.0.0.1', PORT))",
        "open('/etc/passwd').read()",
        "open('../left-behind', 'w')",
        "open('HERE/left-behind', 'w')",
        "import os\nos.remove('HERE/precious')",
    ],
)
def test_code_neither_leaves_early_nor_reaches_out(code, tmp_path):
    (tmp_path / "precious").write_text("x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        full = code.replace("PORT", str(server.getsockname()[1])).replace("HERE", str(tmp_path))
        assert not verifiers.runs(full)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_endless_code_is_ended_and_several_run_at_the_same_time(monkeypatch):
    monkeypatch.setattr(verifiers, "PATIENCE", 1.0)
    found = []
    endless = [threading.Thread(target=lambda: found.append(verifiers.runs("while True: pass"))) for _ in range(2)]
    for thread in endless:
        thread.start()
    for thread in endless:
        thread.join(timeout=20)
    assert found == [False, False]


def test_ordinary_code_has_its_library_and_its_folder():
    assert verifiers.runs(
        "import json, math, re, collections, itertools\nopen('a', 'w').write('1')\nassert open('a').read() == '1'"
    )


def _questions(folder):
    """Thirty small tasks with their tests, and recorded traces, half of which pass them: folder and file."""
    names = {"add": "+", "less": "-", "times": "*"}
    rows = [
        (f"Write {name}{n}(x), which gives x {sign} {n}.", f"{name}{n}", sign, n)
        for name, sign in names.items()
        for n in range(2, 12)
    ]
    data = folder / "data" / "code"
    data.mkdir(parents=True)
    cut = {"train": rows[:24], "test": rows[24:]}
    for split, part in cut.items():
        lines = [
            json.dumps({"question": q, "answer": f"assert {f}(7) == 7 {s} {n}\nassert {f}(0) == 0 {s} {n}"})
            for q, f, s, n in part
        ]
        (data / f"{split}.jsonl").write_text("\n".join(lines))
    with open(folder / "traces.jsonl", "w") as file:
        for row, (question, name, sign, n) in enumerate(cut["train"]):
            for sample, right in enumerate((True, False, True, False)):
                body = f"x {sign} {n}" if right else f"x {sign} {n + 1 + sample}"
                text = f"Way {sample}: say it.\n```python\ndef {name}(x):\n    return {body}\n```"
                told = {"benchmark": "code", "row": row, "question": question, "text": text, "sample": sample}
                file.write(json.dumps(told) + "\n")
    return data.parent, folder / "traces.jsonl"


def test_a_student_of_code_is_taught_by_what_passes_its_tests(tmp_path):
    data, traces = _questions(tmp_path)
    config = recipe(
        "pocket-quick",
        {"benchmarks": "code", "data": str(data), "teacher": f"traces:{traces}", "negatives": "teacher", "k": 2,
         "problems": None, "test_problems": 3, "verifier": "tests", "rouge_threshold": 1, "epochs": 1,
         "instruction": "Write a function in a python block.", "max_new_tokens": 32},
    )  # fmt: skip
    distill.prepare(tmp_path / "run", config)
    assert distill.run(tmp_path / "run") == "done"
    for stage, outcome, draws in (("teacher", "correct", {0, 2}), ("teacher-wrong", "wrong", {1, 3})):
        kept = [
            trace for trace in runs.records(tmp_path / "run", f"traces/{stage}.jsonl", Trace) if trace.use == "kept"
        ]
        assert len(kept) == 48 and {trace.draw for trace in kept} == draws
        assert {trace.outcome for trace in kept} == {outcome} and {trace.rule for trace in kept} == {"tests"}
    answers = runs.records(tmp_path / "run", "answers/epoch-1.jsonl", Answer)
    assert {answer.outcome for answer in answers} <= {"unparsed", "truncated", "wrong", "correct"}


def test_a_function_of_ones_own_decides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_checks_7.py").write_text(
        "def brief(text, problem):\n    return None if not text else len(text.split()) < 5\n\n"
        "def odd(text, problem):\n    return 'yes'\n\ndef bad(text, problem):\n    return 1 / 0\n"
    )
    judge = verifiers.grader("my_checks_7:brief")
    said = ["a b c", "a b c d e f", ""]
    assert [judge(Completion(t, "stop", 1), DOUBLE)[0] for t in said] == ["correct", "wrong", "unparsed"]
    assert judge(Completion("a b", "length", 1), DOUBLE)[0] == "truncated"
    for spec, told in (
        ("my_checks_7:nobody", "no function nobody"),
        ("nowhere_7:f", "cannot be imported"),
        ("brief", "write it as module:function"),
    ):
        with pytest.raises(LabError, match=told):
            distill.prepare(tmp_path / "run", recipe("pocket-quick", {"verifier": spec}))
    for name, told in (("odd", "said 'yes'"), ("bad", "ZeroDivisionError")):
        with pytest.raises(LabError, match=told):
            verifiers.grader(f"my_checks_7:{name}")(Completion("x", "stop", 1), DOUBLE)
    sys.modules.pop("my_checks_7")
