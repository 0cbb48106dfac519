"""How the dashboard looks: one theme with fonts that are really there, one style sheet, one script, and live plots.

The bundled IBM Plex fonts are whole in Regular and Bold only, so no other weight is asked for anywhere.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import plotly
from gradio.themes.utils.fonts import LocalFont

STATIC = Path(__file__).parent / "static"
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def theme() -> gr.themes.Base:
    """Slate and blue, calm; all pairs of text and background have at least 4.5:1."""
    base = gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        radius_size="sm",
        spacing_size="sm",
        text_size="md",
        font=[LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=[LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"],
    )
    return base.set(
        body_background_fill="#f5f6f8",
        body_background_fill_dark="#0e1116",
        body_text_color="#1b2330",
        body_text_color_dark="#e4e8ee",
        body_text_color_subdued="#566070",
        body_text_color_subdued_dark="#a3adba",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#161b22",
        background_fill_secondary="#f5f6f8",
        background_fill_secondary_dark="#0e1116",
        block_background_fill="#ffffff",
        block_background_fill_dark="#161b22",
        block_border_color="#dfe3e8",
        block_border_color_dark="#2b323b",
        block_label_text_weight="400",
        block_title_text_weight="400",
        block_title_text_color="#566070",
        block_title_text_color_dark="#a3adba",
        block_info_text_color="#566070",
        block_info_text_color_dark="#a3adba",
        input_background_fill="#ffffff",
        input_background_fill_dark="#0e1116",
        input_border_color="#c3c9d1",
        input_border_color_dark="#3a434e",
        input_placeholder_color="#6b7482",
        input_placeholder_color_dark="#8d97a5",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#1f262f",
        button_secondary_background_fill_hover="#eef1f4",
        button_secondary_background_fill_hover_dark="#2b323b",
        button_secondary_border_color="#c3c9d1",
        button_secondary_border_color_dark="#3a434e",
        button_secondary_text_color="#1b2330",
        button_secondary_text_color_dark="#e4e8ee",
        input_border_width="1px",
        input_border_width_dark="1px",
        button_border_width="1px",
        button_border_width_dark="1px",
        button_large_text_weight="400",
        button_medium_text_weight="400",
        button_small_text_weight="400",
    )


def css() -> str:
    """The style sheet."""
    return (STATIC / "app.css").read_text(encoding="utf-8")


def head(token: str) -> str:
    """The page's script, where plotly.js is served (loaded when the first plot shows), and the token of this server."""
    script = (STATIC / "app.js").read_text(encoding="utf-8")
    source = f"/gradio_api/file={PLOTLY}"
    return (
        f'<meta name="labkit-plotly" content="{source}"><meta name="labkit-token" content="{token}">'
        f"<script>{script}</script>"
    )


def plot(elem_id: str, height: int, label: str) -> gr.HTML:
    """A live plot: give it `figure.to_json()`. Updates keep zoom and node, follow dark mode, never move the page."""
    template = f'<div class="plot" role="figure" aria-label="{label}" style="min-height:{height}px"></div>'
    return gr.HTML(
        "", html_template=template, js_on_load="lab.plot(element, props, watch)", elem_id=elem_id, elem_classes="figure"
    )


def live(value: str = "", elem_id: str | None = None, classes: str = "", tall: int | None = None) -> gr.HTML:
    """A piece of page made in Python: clicks on `[data-pick]` become click events, `[data-url]` goes to the address."""
    return gr.HTML(
        value, js_on_load="lab.live(element, trigger, watch)", elem_id=elem_id, elem_classes=classes, max_height=tall
    )
