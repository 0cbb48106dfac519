"""Hours of polling: many tabs of a real browser on a live run and on one of 100,000 traces; does anything grow?

Sampled: memory, handles and threads of the server, memory of the run, sizes of its logs. The slopes are least squares
over the second half, when everything has been loaded once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from labkit import distill, runs
from labkit.config import recipe
from tests.app_server import TABS, browsing
from tests.bench.app import large
from tests.soak.servers import Server

EVERY = 10.0  # seconds between two samples
LIVE = {"problems": 4, "test_problems": 4, "k": 2, "epochs": 1000, "evaluate_every": 50, "batch": 4, "chunk": 4}
LOGS = ("log.txt", "events.jsonl", "metrics.jsonl")


def _open(browser: Browser, url: str, number: int) -> Page:
    """A tab: in turn on the live run's progress, its pairs and accuracy, and on the traces of the large run."""
    tab = ("runs", "traces", "runs", "accuracy")[number % 4]
    page = browser.new_page()
    page.set_default_timeout(600_000)  # the machine may be busy
    page.goto(f"{url}/?tab={tab}&run={'large' if tab == 'traces' else 'live'}")
    if tab != "accuracy":
        page.wait_for_selector(f"{TABS[tab]} >> visible=true")
    return page


def _browse(page: Page, number: int) -> None:
    """What a reader of the large run does: the next problem, now and then a search."""
    page.keyboard.press("j")
    if number % 5 == 0:
        box = page.locator(".key-search textarea:visible, .key-search input:visible")
        if box.count():
            box.first.fill(("food", "plan", "")[number // 5 % 3])


def sample(server: psutil.Process, run: psutil.Process, folder: Path) -> dict[str, float]:
    """One look at everything that could grow."""
    sizes = {name: (folder / name).stat().st_size for name in LOGS if (folder / name).exists()}
    return {
        "time": time.time(), "server MB": server.memory_info().rss / 1e6, "server handles": server.num_fds(),
        "server threads": server.num_threads(), "run MB": run.memory_info().rss / 1e6 if run.is_running() else np.nan,
        "steps": sum(1 for _ in open(folder / "metrics.jsonl", "rb")) if "metrics.jsonl" in sizes else 0, **sizes,
    }  # fmt: skip


def slopes(samples: list[dict[str, float]]) -> dict[str, float]:
    """Change per hour of each figure over the second half."""
    half = samples[len(samples) // 2 :]
    hours = (np.array([one["time"] for one in half]) - half[0]["time"]) / 3600
    names = ("server MB", "server handles", "server threads", "run MB")
    return {name: round(float(np.polyfit(hours, [one[name] for one in half], 1)[0]), 2) for name in names}


def campaign(folder: Path, minutes: float, tabs: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Poll for `minutes` with `tabs` tabs; figures at start, middle and end, and slopes."""
    large(folder / "large")
    distill.prepare(folder / "live", recipe("pocket-quick", LIVE))
    pid, server = runs.start(folder / "live"), Server(folder)
    try:
        with sync_playwright() as engine, browsing(engine) as browser:
            pages = [_open(browser, server.url, number) for number in range(tabs)]
            note(f"{tabs} tabs are open")
            samples = _watch(pages, psutil.Process(server.process.pid), psutil.Process(pid), folder, minutes, note)
    finally:
        server.kill()
        runs.stop(folder / "live")
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=120)
    return _told(samples, tabs, minutes)


def _watch(
    pages: list[Page], server: psutil.Process, run: psutil.Process, folder: Path, minutes: float,
    note: Callable[[str], None],
) -> list[dict[str, float]]:  # fmt: skip
    samples, until = [], time.monotonic() + 60 * minutes
    while time.monotonic() < until:
        _browse(pages[1], len(samples))
        pages[1].wait_for_timeout(1000 * EVERY)
        samples.append(sample(server, run, folder / "live"))
        if len(samples) % 6 == 0:
            note(", ".join(f"{name} {value:.0f}" for name, value in samples[-1].items() if name != "time"))
    return samples


def _told(samples: list[dict[str, float]], tabs: int, minutes: float) -> dict[str, Any]:
    first, middle, last = samples[0], samples[len(samples) // 2], samples[-1]
    names = ("server MB", "server handles", "server threads", "run MB")
    at = {name: [round(one[name]) for one in (first, middle, last)] for name in names}
    steps = last["steps"] - first["steps"]
    return {
        "tabs": tabs, "minutes": minutes, "samples": len(samples), "start, middle, end": at,
        "per hour, second half": slopes(samples), "steps of the run": steps,
        "metrics bytes per step": round((last["metrics.jsonl"] - first["metrics.jsonl"]) / max(steps, 1)),
        "log.txt bytes": last.get("log.txt", 0), "events.jsonl bytes": last["events.jsonl"],
    }  # fmt: skip
