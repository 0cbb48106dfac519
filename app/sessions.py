"""What the server keeps of each open page: bounded in number, and not growing with every update of the page."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any

from gradio.blocks import Block
from gradio.state_holder import SessionState

PAGES = 100  # kept at a time, the longest unused forgotten first (about 1.6 MB each); gradio's own bound is 10,000
LARGE = 128 * 1024  # bytes

_set = SessionState.__setitem__


def give_back() -> None:
    """Have large blocks of memory returned to the system as soon as they are free, where the C library is glibc.

    It would raise its threshold for that to the largest block freed so far, and keep what is below it for each thread:
    half a megabyte of page a second and open tab left holes in every thread's heap, and the server grew for hours.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(-3, LARGE)  # M_MMAP_THRESHOLD; set once, it no longer moves


def _keep_id(session: SessionState, key: int, value: Any) -> None:
    """Store a component under the number that it replaces, and let it have that number itself.

    gradio 6.31 builds a component anew for every update, also for the empty one of `gr.skip()`, with a number of its
    own; when that one is next used, it is kept under its own number as well, with its value, for as long as the page is
    open. With a tick a second that is a leak. Handlers return `gr.update`, never a component: a new one is kept too.
    """
    if isinstance(value, Block):
        value._id = key
    _set(session, key, value)


SessionState.__setitem__ = _keep_id
