"""The dashboard in a real browser: reports, the extractor workbench, the queue, and a server that ends during a run."""

import json
import platform
import re
import shutil
import subprocess
import sys

import pytest
from app_server import DEMO, ROOT, free_port, in_both_themes, new_page, open_tab, serving

from app import main, sessions
from labkit import queueing, runs
from labkit.report_page import MARK


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    """A finished run, and three that wait in a queue nobody works on."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("first", "wait-1", "wait-2", "wait-3"):
        shutil.copytree(DEMO, folder / name, ignore=shutil.ignore_patterns(".index"))
    for n in (1, 2, 3):
        runs.write_status(folder / f"wait-{n}", state="queued")
    queue = {"waiting": ["wait-1", "wait-2", "wait-3"], "current": None, "halt": False}
    (folder / "queue.json").write_text(json.dumps(queue))
    return folder


@pytest.fixture(scope="module")
def url(runs_dir):
    with serving(runs_dir) as found:
        yield found


def saved(page, button):
    """(name, text) of the file that a click saves."""
    with page.expect_download() as download:
        page.click(button)
    return download.value.suggested_filename, download.value.path().read_text(encoding="utf-8")


def test_a_run_and_a_comparison_are_saved_as_one_file(page, url):
    open_tab(page, url, "runs", run="first")
    name, text = saved(page, "#run-report")
    assert name == "report-first.html" and MARK in text and "Before and after" in text
    page.wait_for_selector("#run-told .good")
    open_tab(page, url, "accuracy", run="first")
    page.wait_for_selector("#comparison table")
    name, text = saved(page, "#pair-report")
    assert re.fullmatch(r"report-first-epoch-0-first-epoch-\d+\.html", name) and "comparison of two runs" in text
    assert "paired" in page.inner_text("#comparison")


def test_a_report_of_a_run_without_scores_says_why(page, url, runs_dir):
    (runs_dir / "wait-3" / "scores.jsonl").unlink()
    open_tab(page, url, "runs", run="wait-3")
    page.click("#run-report")
    page.wait_for_selector("#run-told .trouble:has-text('no evaluation is finished')")


def test_the_queue_is_reordered_and_cancelled_by_clicking(page, url, runs_dir):
    open_tab(page, url, "runs", run="first")
    page.click("[data-pick='later:wait-1']")
    page.wait_for_selector("[data-pick='earlier:wait-1']")
    assert queueing.read(runs_dir)["waiting"] == ["wait-2", "wait-1", "wait-3"]
    page.click("[data-pick='earlier:wait-3']")
    page.wait_for_selector("[data-pick='later:wait-3']")
    page.click("[data-pick='cancel:wait-2']")
    page.wait_for_selector("[data-pick='cancel:wait-2']", state="detached")
    assert queueing.read(runs_dir)["waiting"] == ["wait-3", "wait-1"]
    assert page.locator("text=The queue is asleep").is_visible()


def test_the_workbench_shows_what_every_rule_reads(page, url):
    open_tab(page, url, run="first")
    page.get_by_role("button", name="Extractor workbench").click()
    page.get_by_label("Completion").fill("So 3 + 4 = 7, not <img src=x onerror=window.hacked=1>.\nAnswer: 7")
    page.wait_for_selector("h2:has-text('Scored') .o.correct")
    rows = page.locator("table.plain.left tbody tr")
    assert rows.count() >= 5 and rows.filter(has_text="← scored").count() == 1
    page.get_by_label("Right answer").fill("8")
    page.wait_for_selector("h2:has-text('Scored') .o.wrong")
    page.get_by_label("was cut at the token limit").check()
    page.wait_for_selector("h2:has-text('Scored') .o.truncated")
    page.get_by_role("button", name="Take the problem above").click()
    page.wait_for_function("!document.body.innerText.includes('Scored ✂')")
    assert page.evaluate("window.hacked") is None


def test_the_open_form_and_the_workbench_have_no_accessibility_violation(page, url):
    open_tab(page, url, "runs", run="first")
    page.get_by_role("button", name="New run").click()
    page.get_by_role("button", name="All other settings").click()
    page.locator("#set-k input").fill("0")
    page.wait_for_selector("#set-k .field-error")
    in_both_themes(page)
    open_tab(page, url, run="first")
    page.get_by_role("button", name="Extractor workbench").click()
    page.get_by_label("Completion").fill("Answer: 7")
    page.wait_for_selector("h2:has-text('Scored')")
    in_both_themes(page)


def test_nothing_jumps_while_a_run_goes_on(page, url, runs_dir):
    open_tab(page, url, "runs", run="first")
    page.wait_for_selector("#curves .main-svg")
    page.wait_for_timeout(2500)
    page.evaluate(
        "window.shift = 0; new PerformanceObserver(list => list.getEntries().forEach(one => shift += one.value))"
        ".observe({type: 'layout-shift'})"
    )
    row = json.loads((runs_dir / "first" / "metrics.jsonl").read_text().splitlines()[-1])
    points = page.evaluate("document.querySelector('#curves .js-plotly-plot').calcdata[0].length")
    for step in (1, 2):
        runs.log_line(runs_dir / "first", "metrics.jsonl", **{**row, "step": row["step"] + step})
        drawn = f"document.querySelector('#curves .js-plotly-plot').calcdata[0].length === {points + step}"
        page.wait_for_function(drawn)
    assert page.evaluate("shift") < 0.01


def test_a_password_is_demanded_where_one_is_set_and_of_whoever_opens_the_lab_to_others(browser, tmp_path):
    with serving(tmp_path, LABKIT_AUTH="me:secret") as url:
        page = new_page(browser)
        assert page.goto(f"{url}/config").status == 401
        page.goto(url)
        page.get_by_label("username").fill("me")
        page.get_by_label("password").fill("secret")
        page.get_by_role("button", name="Login").click()
        page.wait_for_selector(".trace >> visible=true")
        page.close()
    command = [sys.executable, "-m", "labkit", "app", "--host", "0.0.0.0", "--runs-dir", str(tmp_path)]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and "set LABKIT_AUTH" in refused.stderr


def test_a_run_from_the_command_line_is_live_and_outlives_the_server(browser, tmp_path):
    settings = {"benchmarks": "pocket_arc", "problems": 2, "test_problems": 2, "k": 2} | {
        "epochs": 400, "checkpoint_steps": 1, "evaluate_every": 400,
    }  # fmt: skip
    sets = [part for field, value in settings.items() for part in ("--set", f"{field}={value}")]
    command = [
        sys.executable,
        "-m",
        "labkit",
        "distill",
        "mine",
        "--recipe",
        "pocket-quick",
        "--runs-dir",
        str(tmp_path),
    ]
    port, page = free_port(), new_page(browser)
    with open(tmp_path / "log", "wb") as log:
        run = subprocess.Popen([*command, *sets], cwd=ROOT, stdout=log, stderr=log)
    try:
        with serving(tmp_path, port) as url:
            page.goto(f"{url}/?tab=runs&run=demo-run")
            page.click("[data-pick='run:mine']")
            page.wait_for_selector("#run-head .state.training")
            page.wait_for_selector("#run-stop:enabled")
        assert run.poll() is None and runs.status(tmp_path / "mine")["state"] in runs.LIVE
        with serving(tmp_path, port):
            page.wait_for_url("**run=mine**")
            page.goto(f"{url}/?tab=runs&run=mine")
            page.wait_for_selector("#run-stop:enabled")
            page.click("#run-stop")
            page.wait_for_selector("#run-head .state.stopped")
        assert run.wait(120) == 3
    finally:
        run.terminate()
        run.wait(120)
        page.close()


def test_a_page_that_stays_open_does_not_make_the_server_grow(browser, tmp_path):
    shutil.copytree(DEMO, tmp_path / "one")
    port = free_port()
    app = main.launch(tmp_path, port, wait=False)[0]
    try:
        page = new_page(browser)
        open_tab(page, f"http://127.0.0.1:{port}", "runs", run="one")
        for number in range(2):  # so that ticks have something to say, and nothing in between
            shutil.copytree(DEMO, tmp_path / f"more-{number}")
            page.wait_for_selector(f"text=more-{number} >> visible=true")
            page.wait_for_timeout(2500)
        (session,) = app.state_holder.session_data.values()
        assert set(session.blocks_config.blocks) == set(app.blocks.blocks)
        assert set(session.config_values) == set(app.blocks.blocks)
        assert app.state_holder.capacity == sessions.PAGES
        assert app.blocks._queue.ANALYTICS_MAX_EVENTS <= 50, "each record of a past event keeps memory around it in use"
        page.close()
    finally:
        app.blocks.close()


CHURN = """
import sys
from pathlib import Path
import gradio, psutil
from app import main
gradio.Blocks.launch = lambda *_, **__: None
main.launch(Path(sys.argv[1]), int(sys.argv[2]))
memory = psutil.Process().memory_info
large = b"x" * (8 << 20)  # once freed, blocks of this size would be kept from then on
del large
before, pages = memory().rss, [b"x" * (1 << 20) for _ in range(64)]
del pages[:-1]
print((memory().rss - before) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other habits")
def test_the_server_gives_back_the_memory_of_pages_it_has_sent(tmp_path):
    command = [sys.executable, "-c", CHURN, str(tmp_path), str(free_port())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) <= 8, "MB kept of 64, one of which is still in use"
