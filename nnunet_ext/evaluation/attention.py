"""Which case to open first, for the report and for the last lines of `predict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isnan
from typing import Any

from nnunet_ext.evaluation.confidences import confidence_of, number_in, usable_columns
from nnunet_ext.evaluation.verdict_check import VERDICTS

Row = Mapping[str, Any]  # of `cases.csv`, its cells as text or as numbers

URGENCY = VERDICTS[::-1]  # worst first
ORDER_COLUMNS = ("pairwise_dice", "foreground_entropy", "mean_entropy")  # of a folder that is not calibrated
EMPTY_FLAGS = {"empty_segmentation", "all_members_empty"}


def order_column(rows: Sequence[Row]) -> str:
    """The column that tells best which case is worse; empty if no column is filled in every row."""
    if any(not isnan(number_in(row, "predicted_dice")) for row in rows):
        return "predicted_dice"
    usable = usable_columns(rows)
    return next((column for column in ORDER_COLUMNS if column in usable), "")


def worst_first(rows: Sequence[Row], order: str) -> list[Row]:
    """Rejected cases first, then those to review; among equals the least confident first.

    Equal predicted Dice, which calibration gives to a range of confidences, are ordered by pairwise Dice and entropy.
    A case without a value, such as one without an estimate, comes before those with one. Without verdicts an empty
    segmentation comes first, since members that all find nothing agree, and read as confident.

    Args:
        rows: with the column `case`, and `verdict` and `flags` if they have any.
        order: one of `confidences.DIRECTIONS`; empty for none.

    Returns:
        The same rows; in alphabetical order where nothing else tells them apart.
    """

    def rank(row: Row) -> tuple[int, bool, float, float, float, str]:
        verdict = row.get("verdict") or ""
        by_verdict = URGENCY.index(verdict) if verdict in URGENCY else -1
        is_full = bool(verdict) or not EMPTY_FLAGS.intersection(flags_of(row))
        value = confidence_of(row, order) if order else inf
        agreement, entropy = (_or_zero(number_in(row, name)) for name in ("pairwise_dice", "foreground_entropy"))
        return by_verdict, is_full, -inf if isnan(value) else value, agreement, -entropy, str(row["case"])

    return sorted(rows, key=rank)


def flags_of(row: Row) -> list[str]:
    """The words of the column `flags`: a list, or one text with semicolons as in the file."""
    flags = row.get("flags") or []
    return [flag for flag in flags.split(";") if flag] if isinstance(flags, str) else [str(flag) for flag in flags]


def _or_zero(value: float) -> float:
    return 0.0 if isnan(value) else value
