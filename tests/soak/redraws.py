"""The server's memory while open pages redraw a long run at every step: by what a page sends, without a browser.

Ten sessions ask for the Runs tab of a run of 1,000 epochs, some 700 kB each, after every new step; hours of `polling`
in minutes. The first quarter is for the memory that a server needs at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from labkit import runs
from tests.app_server import DEMO
from tests.soak.servers import Server

SESSIONS, EPOCHS, SECOND = 10, 1000, 1


def _event(url: str, number: int, source: int, values: list[Any], session: str) -> int:
    """Do what an event of a page does and wait for its end; the bytes of the answer. Raises AssertionError."""
    body = {"data": values, "fn_index": number, "session_hash": session, "trigger_id": source}
    httpx.post(f"{url}/gradio_api/queue/join", json=body, timeout=600).raise_for_status()
    with httpx.stream("GET", f"{url}/gradio_api/queue/data", params={"session_hash": session}, timeout=600) as heard:
        lines = list(heard.iter_lines())
    assert any('"success":true' in line for line in lines), lines
    return sum(map(len, lines))


def _events(url: str) -> tuple[Callable[[str], int], Callable[[str], int]]:
    """What opens a page, and what its Runs tab asks every second: each takes a session."""
    config = httpx.get(f"{url}/config", timeout=60).json()
    every = {one["id"] for one in config["components"] if one["type"] == "timer" and one["props"]["value"] == SECOND}
    of = {name: one for one in config["dependencies"] for _, name in one["targets"]}
    (tick,) = [one for one in config["dependencies"] if any(source in every for source, _ in one["targets"])]
    load, source = of["load"]["id"], tick["targets"][0][0]
    return (
        partial(_event, url, load, of["load"]["targets"][0][0], []),
        partial(_event, url, tick["id"], source, ["long", None, None]),
    )


def campaign(folder: Path, rounds: int, note: Callable[[str], None]) -> dict[str, Any]:
    """`rounds` steps of a run, each redrawn by every session; the server's memory on the way."""
    long = shutil.copytree(DEMO, folder / "long", ignore=shutil.ignore_patterns(".index"))
    settings = json.loads((long / "config.json").read_text())
    (long / "config.json").write_text(json.dumps({**settings, "epochs": EPOCHS}))
    row = json.loads((long / "metrics.jsonl").read_text().splitlines()[-1])
    server, memory, size = Server(folder), [], 0
    try:
        opened, ticked = _events(server.url)
        sessions = [f"page-{number}" for number in range(SESSIONS)]
        with ThreadPoolExecutor(SESSIONS) as pool:
            list(pool.map(opened, sessions))
            for step in range(rounds):
                runs.log_line(long, "metrics.jsonl", **{**row, "step": row["step"] + step + 1})
                size = max(pool.map(ticked, sessions))
                memory.append(psutil.Process(server.process.pid).memory_info().rss / 1e6)
                if step % 25 == 0:
                    note(f"round {step}: server {memory[-1]:.0f} MB")
    finally:
        server.kill()
    rest = memory[rounds // 4 :]
    return {
        "sessions": SESSIONS, "redraws": rounds * SESSIONS, "kB each": round(size / 1000),
        "server MB at the quarters": [round(memory[min(rounds * n // 4, rounds - 1)]) for n in range(5)],
        "MB per 1,000 redraws after the first quarter": round(
            float(np.polyfit(np.arange(len(rest)), rest, 1)[0]) * 1000 / SESSIONS, 1
        ),
    }  # fmt: skip
