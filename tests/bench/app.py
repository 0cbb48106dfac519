"""How fast the dashboard is: opening, ticking with 5,000 points, and a run with 100,000 traces.

python -m tests.bench.app        # progress on stderr, one JSON object as the last line
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app_server import DEMO, ROOT, browsing, serving

from app import indexed, runs_tab, search, store, trace_page, traces
from app.search import Query

TRACES, POINTS = 100_000, 5_000


def timed(call, repeat=5):
    """Median seconds of a call."""
    spans = []
    for _ in range(repeat):
        began = time.perf_counter()
        call()
        spans.append(time.perf_counter() - began)
    return sorted(spans)[repeat // 2]


def large(folder):
    """A run with many questions, traces and steps, made from the recorded one."""
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns(".index"))
    problem = json.loads((DEMO / "problems.jsonl").read_text().splitlines()[0])
    rows = [json.loads(line) for line in (DEMO / "traces" / "teacher.jsonl").read_text().splitlines()]
    with open(folder / "problems.jsonl", "w") as file:
        for n in range(TRACES // 10):
            file.write(json.dumps({**problem, "id": f"pocket_medqa/train/{n}"}) + "\n")
    for path in (folder / "traces").glob("student-*"):
        path.unlink()
    with open(folder / "traces" / "teacher.jsonl", "w") as file:
        for n in range(TRACES):
            row = {**rows[n % len(rows)], "problem": f"pocket_medqa/train/{n // 10}", "draw": n % 10}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    step = json.loads((DEMO / "metrics.jsonl").read_text().splitlines()[0])
    with open(folder / "metrics.jsonl", "w") as file:
        for n in range(POINTS):
            file.write(json.dumps({**step, "step": n + 1, "epoch": (n + 1) * 3 / POINTS}) + "\n")
    return folder


def pages(where):
    """Seconds on the server for the pieces of the Traces tab of a large run, and for a tick of the Runs tab."""
    began = time.perf_counter()
    indexed.traces(where)
    found = {"index_first_s": time.perf_counter() - began}
    indexed._index.cache_clear()
    store._problems.cache_clear()
    began = time.perf_counter()
    matches = search.find(where, Query())
    traces._shown(where, matches.problems[5], Query())
    found["open_again_s"] = time.perf_counter() - began
    found["page_s"] = timed(lambda: trace_page.listing(where, matches, "", 100))
    found["problem_s"] = timed(lambda: traces._shown(where, matches.problems[4321], Query()))

    def searched():
        search._find.cache_clear()
        search.find(where, Query(q="food poisoning"))

    found["search_s"] = timed(searched)

    def tick():
        with open(where / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"step": POINTS + 1, "loss": 1.0, "time": 0.0, "epoch": 3.0}) + "\n")
        runs_tab._drawn(where.parent, where.name, {})

    tick()
    found["tick_5000_points_s"] = timed(tick)
    return found


def first_page(runs_dir):
    """Seconds from the command to a served page, and in the browser from goto to traces on the screen."""
    began = time.perf_counter()
    with serving(runs_dir) as url, sync_playwright() as engine, browsing(engine) as browser:
        found = {"server_s": time.perf_counter() - began}
        spans = []
        for _ in range(3):
            page = browser.new_page()
            began = time.perf_counter()
            page.goto(url)
            page.wait_for_selector(".trace >> visible=true")
            spans.append(time.perf_counter() - began)
            page.close()
        return found | {"first_page_s": sorted(spans)[1]}


def main():
    code = (
        "import time; began = time.perf_counter(); import app.main, sys; "
        "print(time.perf_counter() - began, 'torch' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    found = {"import_s": float(told[0]), "imports_torch": told[1] == "True"}
    with tempfile.TemporaryDirectory() as folder:
        print("building a run with 100,000 traces", file=sys.stderr)
        where = large(Path(folder) / "large")
        found |= pages(where)
        print("opening the page", file=sys.stderr)
        found |= first_page(folder)
    print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}))


if __name__ == "__main__":
    main()
