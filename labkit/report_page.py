"""The report's HTML document: one file that holds its style, script, fonts and plotly.js, and asks nobody for anything.

plotly.js is embedded once, gzipped (2.0 MB as text instead of 4.8), and unpacked by the browser. The content security
policy lets exactly two scripts run, named by their hashes, so that a model's words could not run even if they were not
escaped, and forbids every request. Without JavaScript the tables and the sentence under each chart remain.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import time
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import plotly

from labkit.markup import text
from labkit.versions import versions

MARK = '<meta name="generator" content="labkit report">'  # how a report is told from any other file
FONTS = Path("templates/frontend/static/fonts/IBMPlexSans")  # in gradio's package; asked for by path, not imported


def page(kind: str, title: str, lead: str, tiles: Sequence[tuple[str, str, str]], sections: Sequence[Any]) -> str:
    """The whole document.

    `kind` and `title` are plain text; `lead`, the tiles (name, value, note) and the sections (title, body) are HTML.
    """
    parts = [(f"s{number}", name, body) for number, (name, body) in enumerate(sections, 1) if body]
    links = "".join(f'<li><a href="#{id}">{text(name)}</a></li>' for id, name, _ in parts)
    body = "".join(
        f'<section id="{id}" aria-labelledby="{id}-h"><h2 id="{id}-h">{text(name)}</h2>{inner}</section>'
        for id, name, inner in parts
    )
    shown = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd><dd class='sub'>{note}</dd></div>" for name, value, note in tiles
    )
    top = (
        f'<header class="top"><div class="bar"><p class="kind">ORPO-Distill lab<span>{text(kind)}</span></p>'
        f'<button id="theme" type="button" hidden>Light / dark</button></div><h1>{text(title)}</h1>'
        f'<p class="lead">{lead}</p><dl class="tiles">{shown}</dl></header>'
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{MARK}\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>{text(title)} · labkit report</title>\n<style>{_fonts()}{_asset("report.css")}'
        f"</style></head>\n<body>{top}\n"
        f'<nav aria-label="contents"><ol>{links}</ol></nav>\n<main>{body}</main>\n'
        f"<footer><p>{_written()}</p></footer>\n"
        f'<script type="text/plain" id="plotly">{_packed()}</script>\n<script>{_asset("report.js")}</script>'
        "</body></html>\n"
    )


def chart(figure: Any, caption: str) -> str:
    """A figure of `labkit.figures` with its sentence for those who do not see it; `caption` is HTML."""
    alt, height = text(figure.layout.meta["alt"]), figure.layout.height
    data = figure.to_json().replace("<", "\\u003c")  # no tag can end the script element early
    return (
        f'<figure tabindex="0"><div class="plot" role="img" aria-label="{alt}" style="min-height:{height}px"></div>'
        f'<script type="application/json">{data}</script><noscript><p>The chart needs JavaScript: {alt}.</p></noscript>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def fold(title: str, body: str) -> str:
    """Something that only some readers want; printed open."""
    return f"<details><summary>{title}</summary>{body}</details>"


def callout(finding: str, rest: str, kind: str = "") -> str:
    """The sentence to remember; both are HTML."""
    return f'<p class="callout {kind}"><b>{finding}</b> {rest}</p>'


def note(words: str) -> str:
    """Small print; HTML."""
    return f'<p class="note">{words}</p>'


def _policy() -> str:
    scripts = " ".join(f"'sha256-{_hash(code)}'" for code in (_asset("report.js"), _plotly()))
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(code: str) -> str:
    return base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()


@lru_cache(maxsize=4)
def _asset(name: str) -> str:
    return (resources.files("labkit") / "assets" / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _plotly() -> str:
    return (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _packed() -> str:
    return base64.b64encode(gzip.compress(_plotly().encode(), 9, mtime=0)).decode()


@lru_cache(maxsize=1)
def _fonts() -> str:
    """IBM Plex Sans in Regular and Bold as the dashboard uses it, if it is installed; else the reader's own fonts."""
    found = importlib.util.find_spec("gradio")
    faces = ""
    for name, weight in (("Regular", 400), ("Bold", 700)):
        file = Path(found.origin).parent / FONTS / f"IBMPlexSans-{name}.woff2" if found and found.origin else Path()
        if file.is_file():
            data = base64.b64encode(file.read_bytes()).decode()
            source = f"url(data:font/woff2;base64,{data}) format('woff2')"
            faces += f"@font-face{{font-family:'IBM Plex Sans';font-weight:{weight};src:{source}}}"
    return faces


def _written() -> str:
    found = versions()
    when = time.strftime("%d %b %Y, %H:%M")
    return (
        f"Written on {when} by labkit {text(found.get('labkit', ''))} (Python {found['python']}) from the run folder "
        "alone. This file is complete: it works offline and asks no server for anything."
    )
