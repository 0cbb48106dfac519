"""What a tab's `build` hands to the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
LAST: dict[str, Any] = {**QUIET, "trigger_mode": "always_last"}


@dataclass(frozen=True)
class Tab:
    """`enter(run, params, *values)` draws the tab: `values` are of `inputs[1:]`, `inputs[0]` being the run; `params`
    is what the address said when the page was opened. `timers` tick only while the tab is shown."""

    enter: Callable[..., list[Any]]
    inputs: list[Any]
    outputs: list[Any]
    timers: list[Any] = field(default_factory=list)
