"""The columns of `cases.csv` that say how confident a prediction is, and in which direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

# +1: larger is more confident; -1: larger is less confident
DIRECTIONS = {
    "predicted_dice": 1,
    "pairwise_dice": 1,
    "mean_entropy": -1,
    "foreground_entropy": -1,
    "mutual_information": -1,
    "expected_dice": 1,
}
ADDED_LATER = ("predicted_dice", "expected_dice")  # by a calibration or an error map, not by the members
BETWEEN_MEMBERS = ("pairwise_dice", "mutual_information")  # not defined for a single member


def needs_more_members(row: Mapping[str, Any], column: str) -> bool:
    """Whether a column compares members and the row has only one; older tables have a 0 there."""
    return column in BETWEEN_MEMBERS and row.get("members") in (1, "1")


def confidence_of(row: Mapping[str, Any], column: str) -> float:
    """A row's value of a column, with the sign that makes larger mean more confident.

    NaN if the cell is empty or missing, and for columns that need several members if the row has one.

    Args:
        row: row of `cases.csv`, its cells as text or as numbers.
        column: one of `DIRECTIONS`.
    """
    value = None if needs_more_members(row, column) else row.get(column)
    return DIRECTIONS[column] * float(value) if value not in (None, "") else float("nan")


def usable_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns that have a finite value in every row; none if there are no rows."""
    return [column for column in DIRECTIONS if rows and all(isfinite(confidence_of(row, column)) for row in rows)]
