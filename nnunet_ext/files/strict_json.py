"""JSON as the standard has it, for files that somebody else may have written or damaged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

LARGEST_INTEGER = 2**63


def read_strict_json(file: Path) -> Any:
    """The content of a JSON file, with finite numbers only.

    Python's parser also takes NaN, infinity, numbers that overflow to it and integers that no float can hold, and
    ends with a RecursionError on brackets without end.

    Raises:
        ValueError: if the file is not UTF-8, not JSON, or holds any of these.
        OSError: if it cannot be read.
    """
    return strict_json(file.read_text(encoding="utf-8"))


def strict_json(text: str | bytes) -> Any:
    """The content of a JSON text; see `read_strict_json`.

    Raises:
        ValueError: if it is refused.
    """
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"found the number {text}, which is not finite")
    return number


def _integer(text: str) -> int:
    number = int(text)
    if abs(number) > LARGEST_INTEGER:
        raise ValueError(f"found an integer of {len(text)} digits")
    return number
