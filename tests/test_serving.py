"""The student's own server: it has the newest weights, it ends with the lab however that ends, and it tells why not."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from fake_server import ASKED, GREEDY, small_run

from labkit import models, runs, serving
from labkit.config import recipe
from labkit.generation import TransformersGenerator
from labkit.prompting import plain_template, render
from labkit.records import LabError

SERVE = f"{sys.executable} -m transformers.cli.transformers serve {{model}} --port {{port}} --device cpu"


def _settings(serve, **more):
    return recipe("pocket-quick", {"serve": serve, "retries": 2, **more})


def _gone(words):
    """Whether no process with these words in its command line is left, within ten seconds."""
    for _ in range(100):
        lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
        if not any(words in line for line in lines):
            return True
        time.sleep(0.1)
    return False


def test_a_served_student_says_what_it_says_here_with_its_present_weights_and_no_template(tmp_path):
    model, tokenizer = models.load("pocket:student-neox")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.05)  # as training would have moved it
    tokenizer.chat_template = None
    lines = []
    with serving.served(model, tokenizer, _settings(SERVE), tmp_path, lines.append) as generator:
        assert generator.name == "pocket:student-neox" and "key" not in str(vars(generator.server.client)).lower()
        said = generator.generate(ASKED, GREEDY)
        assert (tmp_path / "serving").is_dir() and str(tmp_path / "serving") in lines[0]
    expected = TransformersGenerator(model, tokenizer, "here").generate(ASKED, GREEDY)
    assert [draws[0].text for draws in said] == [draws[0].text for draws in expected]
    assert len({draws[0].text for draws in said}) > 3
    assert not (tmp_path / "serving").exists() and _gone(str(tmp_path / "serving"))


@pytest.mark.parametrize("spec", ["pocket:student-neox", "pocket:teacher"])
def test_the_plain_template_renders_as_the_plain_prompt(spec):
    tokenizer = models.load_tokenizer(spec)
    tokenizer.chat_template = None
    plain = render(tokenizer, "2 + 3?\nThink.", [("1 + 1?", "It's\nAnswer: 2")])
    tokenizer.chat_template = plain_template(tokenizer)
    assert render(tokenizer, "2 + 3?\nThink.", [("1 + 1?", "It's\nAnswer: 2")]) == plain


def test_a_run_samples_its_negatives_from_a_served_student_and_ends_like_any_other(tmp_path):
    folder = tmp_path / "run"
    assert small_run(folder, serve=SERVE, phi=1.0, epochs=2) == "done"
    log = (folder / "server.log").read_text()
    assert "POST /v1/chat/completions" in log
    traces = [row for stage in ("student-0", "student-1") for row in runs.rows(folder / f"traces/{stage}.jsonl")]
    assert traces and {row["model"] for row in traces} == {"pocket:student-neox"}
    assert {row["logprob"] for row in traces} == {None}, "this server offers none, the engine here always does"
    assert len({row["text"] for row in traces}) > len({row["problem"] for row in traces}), "it samples"
    assert not (folder / "serving").exists() and not (folder / "servers.jsonl").exists()
    assert _gone(str(folder / "serving"))


def test_no_server_outlives_a_lab_that_was_killed(tmp_path):
    code = (
        "import sys; from pathlib import Path; from labkit import models, serving; from labkit.config import recipe\n"
        "serve = 'sh -c \"sleep 98765 & exec sleep 98766 # {model} {port}\"'\n"
        "settings = recipe('pocket-quick', {'serve': serve})\n"
        "loaded = models.load('pocket:student-qwen')\n"
        "with serving.served(*loaded, settings, Path(sys.argv[1]), print): pass"
    )
    lab = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert "serving the student" in lab.stdout.readline()
    while _gone_now("sleep 98766"):
        time.sleep(0.05)
    os.kill(lab.pid, signal.SIGKILL)
    lab.wait()
    lab.stdout.close()
    assert _gone("sleep 9876"), "neither the server nor what it started"


def _gone_now(words):
    return not any(words in " ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"]))


@pytest.mark.parametrize(
    ("serve", "said"),
    [
        ("sh -c 'echo no such GPU >&2; exit 3 # {model} {port}'", "ended with 3: no such GPU"),
        ("sh -c 'echo loading; sleep 60 # {model} {port}'", r"no answer within serve_wait = 1 s: loading"),
    ],
)
def test_a_server_that_does_not_come_up_says_why(tmp_path, serve, said):
    loaded = models.load("pocket:student-qwen")
    with (
        pytest.raises(LabError, match=f"serve: .*{said}"),
        serving.served(*loaded, _settings(serve, serve_wait=1), tmp_path, print),
    ):
        pass
    assert not (tmp_path / "serving").exists()


def test_a_command_that_cannot_be_started_is_bad_input(tmp_path):
    with pytest.raises(LabError, match="no program 'vllm-not-here'"):
        small_run(tmp_path / "run", serve="vllm-not-here serve {model} --port {port}")
    assert not (tmp_path / "run").exists()
    assert serving.command("'a b' {model} -p={port}", tmp_path / "c d", 7) == ["a b", str(tmp_path / "c d"), "-p=7"]
