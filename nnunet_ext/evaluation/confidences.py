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


def number_in(row: Mapping[str, Any], column: str) -> float:
    """A cell as a number; NaN if it is empty or missing, or needs several members where the case had one.

    Args:
        row: row of `cases.csv`, its cells as text or as numbers.
        column: its name.

    Raises:
        ValueError: if it is not a number.
    """
    value = row.get(column)
    if value is None or value == "" or needs_more_members(row, column):
        return float("nan")
    try:
        return float(value)
    except ValueError as error:
        raise ValueError(
            f"Numbers of a table of cases have a point as decimal mark; the column {column} of {row.get('case')} "
            f"holds {value!r}. Was the table saved by a spreadsheet program?"
        ) from error


def confidence_of(row: Mapping[str, Any], column: str) -> float:
    """The number in a column of `DIRECTIONS`, with the sign that makes larger mean more confident; NaN likewise."""
    return DIRECTIONS[column] * number_in(row, column)


def usable_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns that have a finite value in every row; none if there are no rows."""
    return [column for column in DIRECTIONS if rows and all(isfinite(confidence_of(row, column)) for row in rows)]
