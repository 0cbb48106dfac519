"""A dashboard server in a process of its own and a real browser, for the tests, the screenshots and the benchmark."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# the shell is the same browser without windows of its own: a page takes it about two thirds of the processor's time
CHROMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = os.environ.get("LABKIT_CHROMIUM") or next(filter(None, map(shutil.which, CHROMES)), None)
DEMO = ROOT / "app" / "demo-run"
PATIENCE = 120_000  # milliseconds for anything to appear: a crowded machine is slow, and nothing here is about speed
TABS = {"traces": ".trace", "pairs": ".trace", "accuracy": "#bars .main-svg", "runs": ".stages"}  # what says: ready


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(runs_dir, port=None, **environment):
    """The address of a dashboard over `runs_dir`; it is ended afterwards, the runs it started are not."""
    port = port or free_port()
    command = [sys.executable, "-m", "app", "--runs-dir", str(runs_dir), "--port", str(port)]
    with open(Path(runs_dir) / "server.log", "ab") as log:
        server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, **environment})
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(url, timeout=5).read()
                break
            except OSError:
                time.sleep(0.25)
        yield url
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def browsing(playwright):
    """A headless browser."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    try:
        yield browser
    finally:
        browser.close()


def new_page(browser, **options):
    """A page, of a browser or a context, that waits with patience."""
    page = browser.new_page(**options)
    page.set_default_timeout(PATIENCE)
    return page


def open_tab(page, url, tab="traces", **params):
    """Open a tab of the dashboard and wait until it is drawn."""
    query = "&".join(f"{key}={value}" for key, value in {"tab": tab, **params}.items())
    page.goto(f"{url}/?{query}")
    page.wait_for_selector(f"{TABS[tab]} >> visible=true")


def violations(page):
    """What axe finds wrong with a page as it is now: rule and the first nodes."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing")
    found = axe.Axe().run(page).response["violations"]
    return [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found]


def in_both_themes(page):
    """Fail for anything that axe finds in the page as it is now, in light or in dark."""
    for theme in ("dark", "light"):
        page.emulate_media(color_scheme=theme)
        page.wait_for_function("dark => document.body.classList.contains('dark') === dark", arg=theme == "dark")
        page.wait_for_timeout(300)  # colours fade into each other
        assert not violations(page), theme
