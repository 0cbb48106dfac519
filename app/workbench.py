"""Extractor workbench: paste a completion, see what every rule reads in it, and what it would score."""

from __future__ import annotations

import string
from pathlib import Path

import gradio as gr

from app import pieces, store
from app.pieces import text
from app.theme import live
from labkit.answers import RULES, STRICT, grade, readings
from labkit.records import Completion, LabError, Problem

KINDS = ("number", "choice", "boolean", "text")
LONGEST = 20_000  # characters that are read


def build(runs_dir: Path, run: gr.Dropdown, current: gr.State) -> None:
    """Lay the workbench out inside the caller's block."""
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            said = gr.Textbox(
                label="Completion", lines=7, max_lines=14, max_length=LONGEST, placeholder="… so 3 + 4 = 7.\nAnswer: 7"
            )
        with gr.Column(scale=2, min_width=260):
            kind = gr.Dropdown(list(KINDS), value="number", label="Kind of question")
            gold = gr.Textbox(label="Right answer", value="7", max_length=200)
            choices = gr.Textbox(label="Choices, one per line (for choice)", lines=3, max_length=4000)
            with gr.Row():
                cut = gr.Checkbox(label="was cut at the token limit")
                take = gr.Button("Take the problem above", size="sm")
    result = live(pieces.empty("Nothing pasted yet", "Each rule's reading and the score appear here."))
    quiet = {"show_progress": "hidden", "api_visibility": "private", "trigger_mode": "always_last"}
    fields = [said, kind, gold, choices, cut]
    gr.on([field.change for field in fields], report, fields, result, **quiet)

    def taken(name: str, problem: str) -> list[str]:
        try:
            found = store.problems(store.folder(runs_dir, name))[problem]
        except (LabError, KeyError):
            return [gr.skip()] * 3
        return [found.kind, found.answer, "\n".join(found.choices)]

    take.click(taken, [run, current], [kind, gold, choices], **quiet)


def problem_from(kind: str, gold: str, choices: str) -> Problem:
    """A problem as the fields describe it; choices are labelled A, B, ... where the right answer is a letter."""
    options = tuple(line.strip() for line in choices.splitlines() if line.strip()) if kind == "choice" else ()
    gold = gold.strip()
    lettered = len(gold) == 1 and gold.upper() in string.ascii_uppercase[: len(options)] and gold not in options
    labels = tuple(string.ascii_uppercase[: len(options)]) if lettered else ()
    return Problem("workbench", "workbench", "test", "", kind, gold.upper() if lettered else gold, options, labels)


def report(said: str, kind: str, gold: str, choices: str, cut: bool) -> str:
    """A table of what each rule reads, and the score."""
    if not said.strip():
        return pieces.empty("Nothing pasted yet", "Each rule's reading and the score appear here.")
    if kind == "choice" and len([line for line in choices.splitlines() if line.strip()]) < 2:
        return pieces.empty("Which choices?", "Write at least two choices, one per line.")
    problem = problem_from(kind, gold, choices)
    outcome, reading = grade(Completion(said[:LONGEST], "length" if cut else "stop", 0), problem)
    rows = []
    for rule, one in zip(RULES, readings(said[:LONGEST], problem), strict=True):
        found = f"<b>{text(one.answer)}</b>" if one.answer is not None else "found, not readable" if one.span else "–"
        where = f"<code>{text(said[slice(*one.span)])}</code>" if one.span else ""
        used = "← scored" if reading.rule == rule and reading.answer is not None else ""
        rows.append([text(rule), "strict" if rule in STRICT else "loose", found, where, used])
    why = f"by {text(reading.rule)}" if reading.rule else "no rule found an answer"
    head = (
        f'<h2 class="sub">Scored {pieces.outcome(outcome)} &nbsp; read: '
        f"{text(reading.answer) if reading.answer is not None else 'nothing'}, {why}</h2>"
    )
    table = pieces.table(["rule", "sort", "reading", "where it stands", ""], rows, "plain left")
    return (
        f'<div class="panel">{head}{table}<div style="margin-top:8px">'
        f"{pieces.said(said[:LONGEST], reading.span)}</div></div>"
    )
