"""A run by two processes is the run of one: same questions, traces and answers, losses to 1e-4, one writer; and it
ends, with the reason, when one of them does."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from forked import distilling, end, said, start, wait_for
from one_at_a_time import make_examples

from labkit import crew, distill, processes, runs
from labkit.config import recipe
from labkit.packing import deal
from labkit.records import Answer, Trace

SETTINGS = {
    "benchmarks": "pocket_arc,pocket_gsm8k", "problems": 3, "test_problems": 3, "chunk": 3, "checkpoint_steps": 2,
    "k": 3, "epochs": 2, "batch": 5, "sft_epochs": 1, "contrast": "differing",  # lambda changes between the epochs
}  # fmt: skip
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines",
          "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # fmt: skip


def _launch(folder):
    """The run by two processes, as a user starts it."""
    command = [*LAUNCH, "-m", "labkit", "distill", folder.name, "--runs-dir", str(folder.parent)]
    return subprocess.Popen(command, stdout=_log(folder), stderr=subprocess.STDOUT)


def _start(folder):
    """The same (leader, follower) without a launcher, as SLURM's srun starts them: sooner here."""
    return [distilling(folder, **place) for place in _places()]


def _places():
    """What a launcher tells each of two processes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    return [{**meeting, "RANK": rank} for rank in ("0", "1")]


def _log(folder):
    return open(folder.parent / "said.txt", "ab")


def _prepared(folder, **more):
    distill.prepare(folder, recipe("pocket-quick", {**SETTINGS, **more}))
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The run of one process."""
    folder = _prepared(tmp_path_factory.mktemp("runs") / "alone")
    assert distill.run(folder) == "done"
    return folder


def _same_run(found, expected):
    for file in ("problems.jsonl", "scores.jsonl", "triplets/epoch-1.jsonl", "triplets/epoch-2.jsonl"):
        assert (found / file).read_bytes() == (expected / file).read_bytes(), file
    for epoch in range(3):
        answers = [runs.records(folder, f"answers/epoch-{epoch}.jsonl", Answer) for folder in (found, expected)]
        assert answers[0] == answers[1]
    for stage in ("teacher", "student-0", "student-1"):
        ours, theirs = (runs.records(folder, f"traces/{stage}.jsonl", Trace) for folder in (found, expected))
        assert [(t.problem, t.draw, t.text, t.use, t.rouge) for t in ours] == [
            (t.problem, t.draw, t.text, t.use, t.rouge) for t in theirs
        ]
        assert [t.logprob for t in ours] == pytest.approx([t.logprob for t in theirs], abs=1e-4)
    ours, theirs = (list(runs.rows(folder / "metrics.jsonl")) for folder in (found, expected))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"time", "seconds"}:
            assert a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-4), name


def test_two_processes_make_the_run_of_one(alone):
    folder = _prepared(alone.parent / "two")
    launcher = _launch(folder)
    while not runs.done(folder, "traces/teacher.jsonl"):
        assert launcher.poll() is None, said(folder)
        time.sleep(0.01)
    leader = runs.status(folder)["pid"]
    (follower,) = [p for p in psutil.Process(launcher.pid).children() if p.pid != leader and "distill" in p.cmdline()]
    written = [file.path for file in follower.open_files() if file.path.startswith(str(folder))]
    assert not written, "only one process writes the run's folder"
    assert launcher.wait() == 0, said(folder)
    assert runs.status(folder)["state"] == "done"
    _same_run(folder, alone)
    (started,) = [row for row in runs.rows(folder / "events.jsonl") if row["event"] == "started"]
    assert started["processes"] == 2


def test_stopped_and_killed_in_every_way_it_says_so_and_comes_to_the_same_end(alone):
    folder = _prepared(alone.parent / "killed", fsdp=True)  # each process then holds a part of the student
    leader, follower = _start(folder)
    wait_for(leader, lambda: len(list(runs.rows(folder / "metrics.jsonl"))) >= 1, folder)
    for process in (leader, follower):  # as a scheduler does before it takes the machine away
        process.terminate()
    assert (end(leader), end(follower)) == (3, 0), said(folder)
    assert runs.status(folder)["state"] == "stopped"
    assert json.loads(next(folder.glob("checkpoints/*/position.json")).read_text())["step"] >= 1

    leader, follower = _start(folder)
    wait_for(leader, lambda: len(list(runs.rows(folder / "metrics.jsonl"))) >= 3, folder)
    follower.kill()
    assert end(leader) == 1
    state = runs.status(folder)
    assert state["state"] == "failed"
    assert state["reason"].startswith(f"process 1 of 2 (pid {follower.pid} on ") and "was killed" in state["reason"]

    leader, follower = _start(folder)
    wait_for(leader, lambda: (folder / "answers/epoch-1.jsonl").exists(), folder)
    leader.kill()
    end(leader)
    assert end(follower) is not None, "nobody is left to tell it: it notices by itself"
    assert runs.status(folder)["state"] == "died"

    assert distill.run(folder) == "done"  # one process alone can go on, too
    _same_run(folder, alone)


def _failing():
    processes.join()
    if processes.rank():
        crew.follow()
    try:
        processes.order("step", [], 0.1, 1.0)  # no student was loaded: the follower fails
        processes.together("mine")
    except RuntimeError as error:
        print("because", processes.reason_of(error))


def _busy():
    processes.GRACE = 0.5
    processes.join()
    if processes.rank():
        os._exit(9)
    with processes.telling(lambda reason: print("told", reason, flush=True)):
        time.sleep(100)


@pytest.mark.parametrize(
    ("work", "code", "line"),
    [
        (_failing, 0, r"because process 1 of 2 \(pid \d+ on .+\) failed: AttributeError: .*None"),
        (_busy, 1, r"told process 1 of 2 \(pid \d+ on .+\) was killed, or its machine is gone"),
    ],
    ids=["a failing follower says why", "a leader in work of its own learns it too"],
)
def test_whoever_ends_the_leader_knows_and_does_not_wait(work, code, line, tmp_path):
    began = time.monotonic()
    leader, follower = [start(work, tmp_path / "said.txt", **place) for place in _places()]
    assert end(leader, 90) == code
    assert end(follower, 90) is not None
    assert re.search(line, said(tmp_path / "run")), said(tmp_path / "run")
    assert time.monotonic() - began < 90


def test_a_step_is_dealt_into_parts_of_about_equal_tokens_with_every_pair_once():
    examples = make_examples()
    pairs = [(e.prompt, *pair) for e in examples for pair in zip(e.chosen, e.rejected, strict=True)]
    for n in (1, 2, 3, 10):
        parts = deal(examples, n)
        assert len(parts) == n
        assert [(e.prompt, *p) for part in parts for e in part for p in zip(e.chosen, e.rejected, strict=True)] == pairs
    assert deal(examples, 1) == [examples]
    halves = [sum(len(t or ()) for e in part for t in (*e.chosen, *e.rejected)) for part in deal(examples, 2)]
    assert max(halves) < 0.7 * sum(halves)


def test_what_was_dealt_comes_back_in_order():
    for n in (1, 2, 3, 7):
        items = list(range(5))
        assert processes.dealt([items[rank::n] for rank in range(n)]) == items
