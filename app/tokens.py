"""Token view: a pair's log-probabilities, worked out by a background process on demand and kept under `.index/tokens`.

This side asks, waits and draws, without torch; `app.token_worker` loads the student and answers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from app import pieces, store
from app.pieces import number, text
from labkit import runs
from labkit.records import LabError

WHICH = ("current", "initial")  # the newest student of the run, or as it was before training


def student(where: Path, which: str) -> tuple[str, str]:
    """(model spec, label) of a run's student; raises `LabError` if the run keeps no weights of it."""
    config = store.config(where)
    if which == "initial":
        return config.student, "initial"
    if (where / "student" / "config.json").exists():
        return str(where / "student"), "final"
    saved = sorted(path for path in (where / "checkpoints").glob("step-*") if path.suffix != ".new")
    if not saved:
        raise LabError("no newer student is saved yet: the first one comes with the first checkpoint")
    return str(saved[-1]), saved[-1].name


def folder(where: Path, which: str) -> Path:
    """Where the results of one student of a run are kept."""
    return where / ".index" / "tokens" / student(where, which)[1]


def result(where: Path, which: str, epoch: int, line: int) -> dict[str, Any] | None:
    """The finished result, or None."""
    path = folder(where, which) / f"{epoch}-{line}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def ask(where: Path, which: str, epoch: int, line: int) -> None:
    """Ask for a pair; a worker is started unless one is there. Raises `LabError` where nothing can be written."""
    target = folder(where, which)
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{epoch}-{line}.asked").touch()
        (target / "error.txt").unlink(missing_ok=True)
        with FileLock(target / ".lock", blocking=False):
            pass
    except Timeout:
        return
    except OSError as error:
        raise LabError(f"{target}: cannot be written ({error.strerror})") from None
    with open(target / "log.txt", "ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "app.token_worker", str(where), which],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def failure(where: Path, which: str) -> str | None:
    """Why the worker gave up, if it did."""
    path = folder(where, which) / "error.txt"
    return path.read_text(encoding="utf-8") if path.exists() else None


# --- drawing ---------------------------------------------------------------------------------------------------------


def page(found: dict[str, Any]) -> str:
    """Both sides coloured, and under them the way from log-probabilities to the loss."""
    sides = "".join(_side(name, found[name]) for name in ("chosen", "rejected") if found[name])
    scale = "".join(
        f'<span class="tok" style="--a:{a}">p {p}</span>' for a, p in ((0.05, "≈ 1"), (0.4, ".4"), (1, "≤ .05"))
    )
    head = f'<h2 class="sub">Token by token, as the {text(found["label"])} student sees it</h2>'
    legend = f'<div class="legend">the deeper the colour and the line, the less likely the token: {scale}</div>'
    return f'<div class="panel">{head}{legend}<div class="sides">{sides}</div>{_sum(found)}{_tables(found)}</div>'


def _shade(logp: float) -> float:
    return min(1.0, -logp / 3)  # p = .05 is as deep as it gets


def _side(name: str, found: dict[str, Any]) -> str:
    spans = "".join(
        f'<span class="tok{" end" if i == len(found["tokens"]) - 1 else ""}" style="--a:{_shade(logp):.2f}" '
        f'title="{number(logp)}">{text(piece)}</span>'
        for i, (piece, logp) in enumerate(found["tokens"])
    )
    return (
        f'<section><h2 class="sub">{name}<span class="note">mean log-prob {number(found["mean"], 4)}, '
        f"{len(found['tokens'])} tokens"
        f'</span></h2><div class="said" dir="auto" tabindex="0" role="group" aria-label="{name}, coloured">'
        f"{spans}</div></section>"
    )


def _sum(found: dict[str, Any]) -> str:
    """The loss of this pair in numbers that add up as they are printed."""
    nll, lam = round(found["nll"], 4), found["lam"]
    parts = [("NLL of the chosen side", number(nll, 4), f"{found['nll_span']}, mean per token")]
    loss = nll
    if found["rejected"] and lam and found.get("loss", "orpo") != "orpo":
        parts.append(("loss of this pair", "–", f"by {found['loss']}, whose formula is in labkit/preferences.py"))
    elif found["rejected"] and lam:
        ratio = round(found["ratio"], 4)
        loss = round(nll + lam * ratio, 4)
        chosen, rejected = round(found["chosen"]["log_odds"], 4), round(found["rejected"]["log_odds"], 4)
        parts = [
            ("log-odds of chosen", number(chosen, 4), f"log q/(1−q), log q = {number(found['chosen']['mean'], 4)}"),
            (
                "log-odds of rejected",
                number(rejected, 4),
                f"log q/(1−q), log q = {number(found['rejected']['mean'], 4)}",
            ),
            (
                "log-odds ratio",
                number(round(chosen - rejected, 4), 4),
                f"{number(chosen, 4)} − ({number(rejected, 4)})",
            ),
            ("odds-ratio term", number(ratio, 4), "−log σ(log-odds ratio)"),
            *parts,
            ("loss of this pair", number(loss, 4), f"{number(nll, 4)} + {lam:g} · {number(ratio, 4)}"),
        ]
    elif not lam:
        parts.append(("loss of this pair", number(loss, 4), "fine-tuning: no odds-ratio term"))
    else:
        parts.append(("loss of this pair", number(loss, 4), "no rejected side: the NLL alone"))
    return (
        '<dl class="sum">'
        + "".join(f"<div><dt>{t}</dt><dd>{v}<small>{w}</small></dd></div>" for t, v, w in parts)
        + "</dl>"
    )


def _tables(found: dict[str, Any]) -> str:
    """The same numbers as text: colour and tooltips are not for everybody."""
    parts = []
    for name in ("chosen", "rejected"):
        if found[name]:
            rows = [
                [f"<code>{text(piece)}</code>", number(logp), f"{2.718281828**logp:.3f}"]
                for piece, logp in found[name]["tokens"]
            ]
            parts.append(
                f"<details><summary>{name}: every token in numbers</summary>"
                f"{pieces.table(['token', 'log-prob', 'p'], rows)}</details>"
            )
    return "".join(parts)


def waiting(where: Path, which: str) -> str:
    """What to show until the result is there."""
    if error := failure(where, which):
        return pieces.problem_of(error)
    busy = runs.status(where)["state"] in runs.LIVE
    slow = " The run itself is using this machine, so it may take longer." if busy else ""
    return pieces.empty(
        "Working it out …", f"A background process loads the student: about ten seconds the first time.{slow}"
    )
