"""Two real servers, `transformers serve` and llama.cpp's, must say what the same model says in this process."""

import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
from fake_server import ASKED, GREEDY, free_port, quick, small_run
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize

from labkit import models, pocket, runs, servers
from labkit.config import recipe
from labkit.generation import Request, Settings, TransformersGenerator
from labkit.records import LabError


def _start(stack, command, port, path):
    """Start a server that ends with the tests; returns what waits for it."""
    guarded = [sys.executable, "-m", "labkit.guard", *command]
    process = subprocess.Popen(guarded, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    stack.callback(lambda: (process.stdin.close(), process.wait()))

    def ready():
        for _ in range(600):
            try:
                if httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 200:
                    return f"http://127.0.0.1:{port}/v1"
            except httpx.HTTPError:
                pass
            assert process.poll() is None, "the server ended"
            time.sleep(0.1)
        raise AssertionError("the server does not answer")

    return ready


def _cut_smollm2(path, layers=4):
    """The first layers of SmolLM2 in fp32, its tokenizer and template whole: small, and equal in both engines."""
    folder, name = models.locate("smollm2")
    reader, writer = GGUFReader(Path(folder) / name), GGUFWriter(path, "llama")
    for key, entry in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            value = {"llama.block_count": layers, "general.file_type": 0}.get(key, entry.contents())
            inner = entry.types[-1] if entry.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(key, value, entry.types[0], inner)
    for tensor in reader.tensors:
        block = re.match(r"blk\.(\d+)\.", tensor.name)
        if not block or int(block[1]) < layers:
            writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Two real servers: `transformers serve` with the pocket teacher, llama.cpp with a cut SmolLM2."""
    folder, gguf = str(pocket.path("teacher")), tmp_path_factory.mktemp("gguf") / "cut.gguf"
    with ExitStack() as stack:
        port, other = free_port(), free_port()
        program = Path(sys.executable).with_name("transformers")
        command = [str(program), "serve", folder, "--port", str(port), "--device", "cpu"]
        teacher = _start(stack, command, port, "/health")
        _cut_smollm2(gguf)
        script = Path(__file__).with_name("llamacpp_server.py")
        llamacpp = _start(stack, [sys.executable, str(script), str(gguf), str(other)], other, "/v1/models")
        yield {
            "transformers": (f"{teacher()}#{folder}", "pocket:teacher"),
            "llama.cpp": (f"{llamacpp()}#cut-smollm2", f"gguf:{gguf}"),
        }


def _here(spec):
    return TransformersGenerator(*models.load(spec), spec)


@pytest.mark.parametrize("name", ["transformers", "llama.cpp"])
def test_a_real_server_says_what_the_same_model_says_in_this_process(real, name):
    url, spec = real[name]
    servers.check(url)
    generator = quick(url, concurrency=2)
    said = [draws[0] for draws in generator.generate(ASKED, GREEDY)]
    expected = [draws[0] for draws in _here(spec).generate(ASKED, GREEDY)]
    assert [(one.text, one.finish, one.tokens) for one in said] == [
        (one.text, one.finish, one.tokens) for one in expected
    ]
    assert len({one.text for one in said}) > 3, "different questions have different answers"
    if name == "llama.cpp":  # it offers log-probabilities
        assert [one.logprob for one in said] == pytest.approx([one.logprob for one in expected], abs=1e-3)
    assert generator.budget.spent[1] == sum(one.tokens for one in said)


def test_draws_of_a_real_server_differ_and_are_as_many_as_asked_though_it_takes_two_choices_at_most(real):
    request = Request("x/train/0", "Is a flea large?", tuple(f"0/teacher/x/train/0/{i}" for i in range(5)))
    generator = quick(real["llama.cpp"][0], concurrency=2, choices=3)
    [draws] = generator.generate([request], Settings(2.0, max_new_tokens=12))
    assert len(draws) == 5 and len({draw.text for draw in draws}) > 2
    assert all(1 <= draw.tokens <= 12 and draw.logprob < 0 for draw in draws)


@pytest.mark.parametrize("name", ["transformers", "llama.cpp"])
def test_a_model_that_a_real_server_does_not_have_is_named(real, name):
    url = real[name][0].partition("#")[0]
    with pytest.raises(LabError, match=r"127\.0\.0\.1.*no-such"):
        servers.check(f"{url}#no-such")


SAME = ("traces/student-0.jsonl", "triplets/epoch-1.jsonl", "answers/epoch-1.jsonl", "scores.jsonl")


def test_a_run_with_its_teacher_behind_a_url_equals_the_run_with_the_teacher_here(real, tmp_path):
    cold = {"temperature": 1e-6, "k": 1, "max_draws": 1}  # as good as greedy, which sampling does not offer
    assert small_run(tmp_path / "here", **cold) == "done"
    assert small_run(tmp_path / "url", **cold, teacher=real["transformers"][0]) == "done"
    for file in SAME:
        assert (tmp_path / "here" / file).read_bytes() == (tmp_path / "url" / file).read_bytes(), file
    here, url = (list(runs.rows(tmp_path / name / "traces/teacher.jsonl")) for name in ("here", "url"))
    assert [row.pop("logprob") for row in url] == [None] * 6, "this server offers none"
    assert all(row.pop("logprob") < 0 for row in here)
    assert {row.pop("model") for row in url} == {real["transformers"][0]}
    assert {row.pop("model") for row in here} == {"pocket:teacher"}
    assert here == url


def test_a_student_behind_a_url_is_evaluated_but_not_trained(real, tmp_path):
    settings = {"method": "zero-shot", "student": real["transformers"][0]}
    assert small_run(tmp_path / "url", **settings) == small_run(
        tmp_path / "here", method="zero-shot", student="pocket:teacher"
    )
    answers = [(tmp_path / name / "answers/epoch-0.jsonl").read_bytes() for name in ("url", "here")]
    assert answers[0] == answers[1]
    with pytest.raises(LabError, match=r"cannot be trained.*zero-shot"):
        recipe("pocket-quick", {"student": real["transformers"][0]})
