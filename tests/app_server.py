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

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = os.environ.get("LABKIT_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
DEMO = ROOT / "app" / "demo-run"


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
