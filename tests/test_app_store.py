"""What the pages read: the index pages large files, follows growing ones and notices replaced ones; texts stay text."""

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from app_server import DEMO

from app import indexed, pair_page, pieces, run_page, search, store, trace_page, workbench
from app.search import Query
from labkit import markup
from labkit.records import LabError, Trace

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def run(tmp_path):
    shutil.copytree(DEMO, tmp_path / "one", ignore=shutil.ignore_patterns(".index"))
    return tmp_path / "one"


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_index_says_what_the_file_says_and_is_kept_beside_the_run(run):
    path = run / "traces" / "teacher.jsonl"
    found = indexed.index(path)
    raw = rows(path)
    assert len(found) == len(raw)
    assert [found.names[i] for i in found.columns["problem"]] == [row["problem"] for row in raw]
    assert indexed.read(found, Trace, np.array([3]))[0].text == raw[3]["text"]
    assert list((run / ".index").iterdir())


def test_a_growing_file_is_followed_up_to_its_last_whole_line(run):
    path = run / "traces" / "teacher.jsonl"
    before = len(indexed.index(path))
    with open(path, "a") as file:
        file.write(json.dumps(rows(path)[0]) + "\n" + '{"half')
    assert len(indexed.index(path)) == before + 1
    with open(path, "a") as file:
        file.write("\n")
    with pytest.raises(LabError, match="damaged line"):
        indexed.index(path)


def test_another_file_under_the_same_name_is_indexed_anew(run):
    path = run / "traces" / "teacher.jsonl"
    indexed.index(path)
    text = path.read_text()
    time.sleep(0.02)
    path.write_text(text.replace('"correct"', '"unparsed"').replace('"truncated"', '"unparsed"'))
    indexed._index.cache_clear()
    assert 0 not in indexed.index(path).columns["outcome"]


def test_a_damaged_index_is_made_anew(run):
    path = run / "traces" / "teacher.jsonl"
    wanted = len(indexed.index(path))
    (saved,) = (run / ".index").iterdir()
    whole = saved.read_bytes()
    flips = [whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in range(0, len(whole), 397)]
    for damaged in (b"", b"no index", whole[: len(whole) // 2], *flips):
        saved.write_bytes(damaged)
        indexed._index.cache_clear()
        assert len(indexed.index(path)) == wanted


def test_filters_agree_with_the_records(run):
    raw = [row for path in (run / "traces").glob("*.jsonl") for row in rows(path)]
    found = search.find(run, Query(outcome="wrong", side="student", epoch="1", q="ANSWER"))
    wanted = [row for row in raw if row["outcome"] == "wrong" and row["epoch"] == 1 and "answer" in row["text"].lower()]
    assert found.traces == len(wanted)
    assert set(found.problems) == {row["problem"] for row in wanted}
    hardest = search.find(run, Query(order="hardest first"))
    rates = hardest.counts[:, 0] / hardest.counts.sum(axis=1)
    assert list(rates) == sorted(rates)


def test_a_search_looks_only_at_what_the_models_said(run):
    assert search.find(run, Query(q="pocket:teacher")).traces == 0  # a model's name in every line, but in no text


def test_names_that_are_no_runs_are_refused(run):
    for name in ("", "..", "../one", "one/../one", "/etc", "two"):
        with pytest.raises(LabError):
            store.folder(run.parent, name)


def test_the_step_of_a_pair_is_the_one_that_training_takes(run):
    training = pytest.importorskip("labkit.training")
    config = store.config(run)
    found = indexed.triplets(run, 2)
    pairs = [(found.names[i], training.Pair((1,), (row,), None)) for row, i in enumerate(found.columns["problem"])]
    before = max(int(pair_page.step(run, 1, line)) for line in range(len(indexed.triplets(run, 1))))
    for number, step in enumerate(training.steps_of(pairs, config, 2), 1):
        for line in (chosen[0] for example in step for chosen in example.chosen):
            assert pair_page.step(run, 2, line) == str(before + number)


def test_differences_mark_the_words_of_one_side_only():
    first, second = "it is a nail, so iron", "it is a rope, so hemp"
    left, right = markup.differences(first, second)
    assert [first[slice(*span)] for span in left] == ["nail", "iron"]
    assert [second[slice(*span)] for span in right] == ["rope", "hemp"]


def test_texts_are_inert_whatever_is_in_them():
    assert pieces.text("<script>&\x00\x1b") == "&lt;script&gt;&amp;␀␛"
    assert "50,000 more characters" in pieces.text("x" * 250_000)
    assert pieces.spans("a<b", [(1, 2, "answer")]) == 'a<mark class="answer">&lt;</mark>b'


def test_the_workbench_shows_every_rule_and_the_score():
    told = workbench.report("So 3 + 4 = 7.\nAnswer: 7", "number", "7", "", False)
    assert "answer-line" in told and "correct" in told and "last-value" in told
    assert "truncated" in workbench.report("Answer: 7", "number", "7", "", True)
    assert "wrong" in workbench.report("Answer: B", "choice", "A", "nail\nrope", False)


def test_of_many_runs_the_newest_are_listed_and_all_can_be_chosen(run):
    for number in range(run_page.SHOWN + 20):
        folder = run.parent / f"run-{number:04d}"
        folder.mkdir()
        for name in ("config.json", "status.json"):
            shutil.copyfile(run / name, folder / name)
        os.utime(folder / "config.json", (number, number))
    listed = run_page.listing(run.parent, "run-0003")
    assert "run:run-0003" in listed and "run:run-0219" in listed and "run:run-0004" not in listed
    assert "older runs" in listed and len(store.folders(run.parent)) == run_page.SHOWN + 22


def test_a_file_that_grows_while_it_is_polled_leaves_no_older_states_in_memory(run):
    path = run / "metrics.jsonl"
    for step in range(50):
        with open(path, "a") as file:
            file.write(json.dumps({"step": 1000 + step, "epoch": 3.0, "loss": 1.0}) + "\n")
        assert store.metrics(run)["step"][-1] == 1000 + step
    assert len(store._metrics.known) <= 8 and len(store._grown) <= 9


def test_tabs_that_ask_for_the_metrics_at_the_same_time_see_each_step_once(run):
    steps = range(1, 4001)
    rows = [json.dumps({"step": step, "epoch": 1.0, "loss": 1 / step, "nll": float("nan")}) + "\n" for step in steps]
    for wait in (0.0, 0.002, 0.004, 0.008):  # the second one asks while the first one reads what was added
        (run / "metrics.jsonl").write_text("".join(rows[:10]))
        store.metrics(run)
        (run / "metrics.jsonl").write_text("".join(rows))
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(store.metrics, run)
            time.sleep(wait)
            second = pool.submit(store.metrics, run)
        for found in (first.result(), second.result(), store.metrics(run)):
            assert np.array_equal(found["step"], steps)


def test_a_step_that_is_taken_again_replaces_what_was_read_of_it(run):
    path = run / "metrics.jsonl"
    rows = [json.dumps({"step": step, "loss": 1.0, **({"late": 7} if step > 2 else {})}) + "\n" for step in range(5)]
    path.write_text("".join(rows))
    assert np.array_equal(store.metrics(run)["late"], [np.nan, np.nan, np.nan, 7, 7], equal_nan=True)
    path.write_text("".join(rows[:3]) + "".join(rows[3:]).replace("1.0", "2.0"))
    assert store.metrics(run)["loss"].tolist() == [1, 1, 1, 2, 2]
    with open(path, "a") as file:
        file.write('{"step": 5, "loss": 0.5}\n{"step": 6')  # the last line is being written
    assert store.metrics(run)["step"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_run_that_has_only_begun_shows_one_accuracy_and_says_that_no_traces_are_there_yet(tmp_path):
    folder = tmp_path / "begun"
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns(".index", "traces", "student"))
    (folder / "traces").mkdir()
    (folder / "traces" / "teacher.jsonl").touch()
    assert "No traces yet" in trace_page.listing(folder, search.find(folder, Query()), "", 0)
    scores = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    begun = [json.dumps(row) + "\n" for row in scores if row["epoch"] == 0]
    whole = run_page.status_line(tmp_path, "begun")
    (folder / "scores.jsonl").write_text("".join(begun))
    now = run_page.status_line(tmp_path, "begun")
    assert whole.count("→") == 1 and "→" not in now and "accuracy <b>" in now
