"""What a machine runs out of in the middle of a run, as one line that says what it was and what to do."""

from __future__ import annotations

import errno

from labkit.records import LabError

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file got too large",
}
BARRED = {errno.EROFS: "is read-only", errno.EACCES: "may not be written", errno.EPERM: "may not be written"}
FULL_WORDS = ("os error 28", "os error 27", "os error 122", "No space left")  # of Rust
FULL_WORDS += ("inline_container", "iostream error")  # of torch.save, which loses the errno
MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory")
LOWER = {
    "sampling": "lower chunk, rows or max_new_tokens",
    "evaluating": "lower chunk, rows or max_new_tokens",
    "training": "lower max_tokens, or set gradient_checkpointing=true",
}


class Trouble(Exception):
    """The machine ran out of something, which is no fault of the input: exit code 1, and the run can go on."""


def told(error: BaseException, state: str = "", name: str = "NAME") -> str | None:
    """One line for an `error` that means: no disk, or no memory; None for any other.

    `state`: what the run `name` was doing, which decides what would take less memory.
    """
    if isinstance(error, Trouble):
        return str(error)
    if isinstance(error, LabError):
        return None
    go_on = f"continue with: labkit distill {name}"
    if isinstance(error, OSError) and error.errno in FULL:
        return f"{FULL[error.errno]} ({error.filename or 'while writing'}): free some space, then {go_on}"
    if isinstance(error, OSError) and error.errno in BARRED:
        return f"{error.filename or 'its folder'} {BARRED[error.errno]}: change that, then {go_on}"
    text = f"{type(error).__name__}: {error}"
    if any(word in text for word in FULL_WORDS):
        return f"the disk is full ({_short(text)}): free some space, then {go_on}"
    if isinstance(error, MemoryError) or "OutOfMemory" in text or any(word in text for word in MEMORY_WORDS):
        less = LOWER.get(state, "take a smaller model")
        where = f"out of memory while {state or 'loading'} ({_short(text)})"
        return f"{where}: free some, then {go_on}; or in a new run {less}"
    return None


def _short(text: str) -> str:
    return " ".join(text.split())[:160]
