"""An exception in words; those of other libraries may have no message."""

from __future__ import annotations

import traceback
from pathlib import Path


def in_words(error: BaseException) -> str:
    """Its kind and message; without a message, the line of code that raised it."""
    name, message = type(error).__name__, str(error).strip()
    if message:
        return f"{name}: {message}"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return f"{name} without a message"
    last = frames[-1]
    return f"{name} without a message, from line {last.lineno} of {Path(last.filename).name}: {last.line}"


def first_line(error: BaseException) -> str:
    """The first line of its message, for a sentence that goes on; its kind if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
