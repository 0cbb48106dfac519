"""Whatever is read, a parser gives a result or refuses in one line, and soon: files, settings, names, servers, answers.

Examples are the same in every run. A deeper look, new ones each time: LABKIT_EXAMPLES=5000 pytest tests/test_inputs.py
"""

import json
import time

import numpy as np
import pytest
from conftest import KINDS
from gguf import GGUFWriter
from hypothesis import given
from hypothesis import strategies as st

from labkit import benchmarks, catalog, models, runs, shards, spm, sweeps
from labkit.answers import grade, readings
from labkit.config import RunConfig, configure, parse_changes, recipe, variants
from labkit.generation import RecordedGenerator, Settings
from labkit.prompts import prompt
from labkit.records import Answer, Completion, LabError, Problem, Score, Trace, Triplet, from_json, to_json
from labkit.replies import completions

TEXT = st.text(st.characters(codec=None), max_size=30) | st.sampled_from(
    [
        "",
        " ",
        "A",
        "yes",
        "4",
        "-1,234.5",
        "1e999",
        "٣",
        "½",
        "a|b",
        "\ud83d",
        "\x00",
        "\x1b[31m",
        "\u202e",
        "#### 4",
        "../x",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
FINE = Settings(0.8, max_new_tokens=64)


def handled(call, *arguments, refusal=LabError):
    """What `call` returns, or the refusal; anything else it raises fails the test, and so does a second of work."""
    start = time.process_time()
    try:
        return call(*arguments)
    except refusal as error:
        assert str(error).strip() and "\n" not in str(error) and len(str(error)) < 2000, str(error)
        return error
    finally:
        assert time.process_time() - start < 1


def changed(row):
    """A good row with some fields replaced, left out or added."""
    return st.builds(
        lambda new, gone: {key: value for key, value in {**row, **new}.items() if key not in gone},
        st.dictionaries(st.sampled_from(sorted(row)) | TEXT, JSON, max_size=3),
        st.sets(st.sampled_from(sorted(row)), max_size=1),
    )


def lines(*rows):
    """A file of such rows, or of anything."""
    row = st.one_of(*map(changed, rows)).map(json.dumps) | JSON.map(json.dumps) | st.text(max_size=40)
    return st.lists(row, min_size=1, max_size=4).map("\n".join) | st.text(max_size=200)


def written(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return str(path)


# --- files -----------------------------------------------------------------------------------------------------------
CHOICES = {"text": ["iron", "rope"], "label": ["A", "B"]}
ROWS = {
    "gsm8k": {"question": "What is 2 + 2?", "answer": "2 + 2 = 4\n#### 4"},
    "arc_challenge": {"question": "Which?", "choices": CHOICES, "answerKey": "A"},
    "strategyqa": {"question": "Is it?", "answer": True},
    "openbookqa": {"question_stem": "Which?", "choices": CHOICES, "answerKey": "B"},
    "medqa_usmle_4opt": {"question": "Which?", "options": {"A": "iron", "B": "rope"}, "answer_idx": "B"},
    "mine": {"question": "Which?", "answer": "4", "choices": ["4", "5"]},
}


@pytest.mark.parametrize("benchmark", ROWS)
@given(data=st.data())
def test_question_files_give_questions_that_can_be_asked_and_graded(benchmark, data, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "questions"
    written(folder / benchmark / "train.jsonl", data.draw(lines(ROWS[benchmark])))
    asked(handled(benchmarks.load, benchmark, "train", str(folder)))


def asked(found):
    for problem in found if isinstance(found, list) else []:
        assert prompt(problem).encode() and problem == from_json(Problem, json.loads(to_json(problem)))
        said = problem.answer if problem.kind != "text" else " ".join(problem.answer.split())
        assert problem.kind == "text" or grade(Completion(f"Answer: {said}", "stop", 1), problem)[0] == "correct"


@given(lines(ROWS["mine"], {"question": "How many?", "answer": 1.5}) | st.binary(max_size=100))
def test_your_own_questions_as_jsonl(tmp_path_factory, content):
    path = written(tmp_path_factory.getbasetemp() / "own.jsonl", content)
    asked(handled(benchmarks.load, path, "train"))


@given(
    st.lists(st.lists(TEXT, max_size=4).map(",".join), max_size=4),
    st.sampled_from(["question,answer,choices", "question,answer", ""]),
)
def test_your_own_questions_as_csv(tmp_path_factory, rows, head):
    path = written(tmp_path_factory.getbasetemp() / "own.csv", "\n".join([head, *rows]))
    asked(handled(benchmarks.load, path, "train"))


RECORDING = {
    "benchmark": "gsm8k",
    "row": 0,
    "question": "What is 2 + 2?",
    "text": "4.\nAnswer: 4",
    "sample": 0,
    "tokens": 5,
    "finish_reason": "stop",
    "model": "m",
}
TRACE = Trace(
    "gsm8k/train/0", "teacher", "m", 0, 0, "4", "correct", "4", "boxed", (0, 1), True, "stop", 2, -0.1, 0.8, "kept"
)
TRIPLET = Triplet("gsm8k/train/0", 1, 0, "a", "b", 0, 1, "student", 0)
ANSWER = Answer("gsm8k/test/0", "gsm8k", "test", 0, "4", "4", "correct", "4", "boxed", (0, 1), True, "stop", 2)
SCORE = Score("gsm8k", "test", 0, 1, 0, 0, 0, 1, 1.0, 0.2, 1.0, 1, 5.0)
PROBLEM = Problem("gsm8k/test/0", "gsm8k", "test", "?", "choice", "A", ("a", "b"), ("A", "B"))
ONES = (TRACE, TRIPLET, ANSWER, SCORE, PROBLEM)
RECORDS = [json.loads(to_json(one)) for one in ONES]


@given(lines(RECORDING, RECORDS[0]))
def test_recorded_traces(tmp_path_factory, content):
    path = written(tmp_path_factory.getbasetemp() / "traces.jsonl", content)
    found = handled(RecordedGenerator, path)
    for draw in [] if isinstance(found, LabError) else [draw for draws in found.recorded.values() for draw in draws]:
        assert draw.completion.text.encode() is not None and draw.completion.finish in ("stop", "length")
        assert isinstance(found.name, str)


@pytest.mark.parametrize(("kind", "row"), [(type(one), row) for one, row in zip(ONES, RECORDS, strict=True)])
@given(data=st.data())
def test_a_record_is_of_the_stated_types_or_refused(kind, row, data):
    found = handled(from_json, kind, json.loads(json.dumps(data.draw(changed(row) | JSON))))
    if not isinstance(found, LabError):
        assert json.loads(to_json(found)).keys() == row.keys()
        texts = [name for name, hint in kind.__annotations__.items() if hint == "str"]
        assert all(isinstance(getattr(found, name), str) for name in texts)


def test_the_records_as_they_are_written_are_read():
    for one, row in zip(ONES, RECORDS, strict=True):
        assert from_json(type(one), row) == one


# --- settings and names ----------------------------------------------------------------------------------------------
@given(st.dictionaries(st.sampled_from(sorted(RunConfig.model_fields)), JSON, max_size=4))
def test_settings(changes):
    handled(configure, {"benchmarks": "pocket_arc", **changes})


@given(
    st.lists(st.tuples(st.sampled_from([*RunConfig.model_fields, "variants"]), TEXT | JSON.map(repr)), max_size=4).map(
        lambda pairs: "\n".join(f"{field}: {value}" for field, value in pairs)
    )
    | st.text(max_size=60)
)
def test_recipes(tmp_path_factory, content):
    path = written(tmp_path_factory.getbasetemp() / "own.yaml", content)
    handled(recipe, path, {"benchmarks": "pocket_arc"})
    handled(variants, path)


def test_a_recipe_that_unfolds_to_billions_is_refused_at_once(tmp_path):
    steps = [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)]
    path = written(tmp_path / "own.yaml", "\n".join(["a: &a [x, x]", *steps, "k: *j"]))
    assert "k = [" in str(handled(recipe, path, {"benchmarks": "pocket_arc"}))


@given(st.lists(TEXT | st.tuples(st.sampled_from(sorted(RunConfig.model_fields)), TEXT).map("=".join), max_size=3))
def test_changes_and_sweeps(pairs):
    handled(parse_changes, pairs)
    handled(sweeps.parse, pairs, recipe("pocket-quick"))
    handled(shards.parse, "".join(pairs))


@given(st.text(max_size=120) | st.text("../\\-_~%a0\x00", max_size=12))
def test_run_names_stay_in_their_folder(tmp_path_factory, name):
    where = tmp_path_factory.getbasetemp()
    found = handled(runs.folder_of, where, name)
    if not isinstance(found, LabError):
        assert found.resolve().parent == where.resolve() and found.name == name and not name.startswith((".", "-"))


# --- servers ---------------------------------------------------------------------------------------------------------
CHOICE = {
    "index": 0,
    "message": {"role": "assistant", "content": "Two.\nAnswer: 2"},
    "finish_reason": "stop",
    "logprobs": {"content": [{"token": "Two", "logprob": -0.1}]},
}


@given(
    st.builds(
        lambda choices, usage, more: {**more, "choices": choices, "usage": usage},
        st.lists(changed(CHOICE) | JSON, max_size=3) | JSON,
        changed({"prompt_tokens": 3, "completion_tokens": 5}) | JSON,
        st.dictionaries(TEXT, JSON, max_size=2),
    )
)
def test_replies_of_servers(reply):
    found = handled(completions, reply, 3, FINE, refusal=ValueError)
    handled(catalog._listed, reply)
    if not isinstance(found, ValueError):
        paid, said = found
        assert (paid is None or 0 < paid < 1e9) and 1 <= len(said) <= 3
        for one in said:
            assert one.text.encode() is not None and 1 <= one.tokens <= 1e9 and one.finish in ("stop", "length")
            assert one.logprob is None or np.isfinite(one.logprob)


@given(
    st.dictionaries(
        st.sampled_from(["data", "object"]), JSON | st.lists(changed({"id": "m", "aliases": ["n"]}), max_size=3)
    )
)
def test_lists_of_models_of_servers(reply):
    assert all(isinstance(name, str) for name in handled(catalog._listed, reply))


# --- model files -----------------------------------------------------------------------------------------------------
PIECES = spm.Pieces(
    tuple(
        spm.Piece(text, -float(i), kind)
        for i, (text, kind) in enumerate(
            [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("<0x0A>", 6), ("a", 1), ("b", 1), ("ab", 1)]
        )
    )
)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=6)), max_size=6) | st.binary(max_size=300))
def test_tokenizer_files(tmp_path_factory, damage):
    content = bytearray(damage) if isinstance(damage, bytes) else bytearray(spm.dump(PIECES))
    for at, new in damage if isinstance(damage, list) else []:
        content[at % len(content) : at % len(content) + len(new)] = new
    path = tmp_path_factory.getbasetemp() / "tokenizer.model"
    path.write_bytes(content)
    found = handled(spm.read, path)
    if not isinstance(found, LabError):
        assert handled(spm.fast, found) is not None


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "good.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_token_list(["a", "b"])
    writer.add_tensor("output.weight", np.zeros((4, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@given(damage=st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))
def test_heads_of_gguf_files(damage, gguf_file):
    content = bytearray(gguf_file.read_bytes())
    for at, new in damage:
        content[at : at + len(new)] = new
    path = gguf_file.with_name("damaged.gguf")
    path.write_bytes(content)
    handled(models.verify, f"gguf:{path}")


# --- answers ---------------------------------------------------------------------------------------------------------
PARTS = st.sampled_from(
    [
        "Answer: ",
        "the answer is ",
        "answer",
        "\\boxed{",
        "}",
        "#### ",
        "Question: ",
        "<think>",
        "</think>",
        "(A)",
        "B) ",
        "iron",
        "yes",
        "no",
        "not ",
        "or ",
        "1,234",
        "0.5",
        "½",
        "٣",
        "=",
        "$",
        "**",
        "\n",
        " ",
        "\t",
        "\\",
        "\\frac{1}{2}",
        "e9",
        "%",
    ]
)


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.lists(PARTS | TEXT, max_size=20).map("".join))
def test_completions_are_graded_whatever_is_in_them(kind, text):
    outcome, reading = handled(grade, Completion(text, "stop", 3), KINDS[kind])
    assert outcome in ("correct", "wrong", "unparsed") and (reading.answer is None) == (outcome == "unparsed")
    for one in [reading, *readings(text, KINDS[kind])]:
        assert one.span is None or 0 <= one.span[0] <= one.span[1] <= len(text)
