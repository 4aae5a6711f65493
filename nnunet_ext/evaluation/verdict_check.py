"""The test of a calibration on cases with ground truth: coverage of intervals, and failures that verdicts catch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_ext.evaluation.failure_table import dice_as_judged
from nnunet_ext.evaluation.results import CaseEvaluation
from nnunet_ext.evaluation.text import count

VERDICTS = ("accept", "review", "reject")


@dataclass(frozen=True)
class VerdictCheck:
    """How well intervals and verdicts did.

    Attributes:
        failure_dice: a case with a lower Dice is a failure.
        failures: verdict to the number of failures with it.
        good: verdict to the number of other cases with it.
        missed: names of the failures that were accepted.
        intervals: number of cases with an interval around their predicted Dice.
        inside: number of these intervals that contain the true Dice, ends included.
        without_interval: number of cases without one.
    """

    failure_dice: float
    failures: Mapping[str, int]
    good: Mapping[str, int]
    missed: tuple[str, ...]
    intervals: int
    inside: int
    without_interval: int

    @property
    def coverage(self) -> float:
        """Share of the intervals that contain the true Dice; NaN without any."""
        return self.inside / self.intervals if self.intervals else math.nan


def verdict_check(
    cases: Sequence[CaseEvaluation], rows: Sequence[Mapping[str, str]], *, failure_dice: float = 0.75
) -> VerdictCheck | None:
    """Compares intervals and verdicts with the true Dice.

    Args:
        cases: evaluated cases; those without a `mean_dice` are left out, and an empty one counts as Dice 0, as
            everywhere where Dice is a risk.
        rows: rows of `cases.csv`; those of other cases and those without a verdict are left out.
        failure_dice: a case with a lower Dice is a failure.

    Returns:
        The check; None if no case has a verdict.
    """
    by_case = {row["case"]: row for row in rows if row.get("verdict")}
    judged = [
        (by_case[case.case], dice_as_judged(case))
        for case in cases
        if case.case in by_case and "mean_dice" in case.figures
    ]
    if not judged:
        return None
    held = [low <= dice <= high for row, dice in judged for low, high in intervals_of(row)]
    failed = [row for row, dice in judged if dice < failure_dice]
    passed = [row for row, dice in judged if not dice < failure_dice]
    return VerdictCheck(
        failure_dice=failure_dice,
        failures=counted(failed),
        good=counted(passed),
        missed=tuple(row["case"] for row in failed if row["verdict"] == "accept"),
        intervals=len(held),
        inside=sum(held),
        without_interval=len(judged) - len(held),
    )


def intervals_of(row: Mapping[str, str]) -> list[tuple[float, float]]:
    """The interval around the predicted Dice of a row; none without an estimate, or if there is no interval."""
    cells = [row.get(f"predicted_dice{end}") or "" for end in ("", "_low", "_high")]
    return [(float(cells[1]), float(cells[2]))] if all(cells) else []


def counted(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Verdict to the number of rows with it."""
    return {word: sum(row["verdict"] == word for row in rows) for word in VERDICTS}


def verdict_check_lines(check: VerdictCheck) -> list[str]:
    """The check as sentences for the terminal."""
    failures, good = sum(check.failures.values()), sum(check.good.values())
    lines = []
    if check.intervals:
        lines.append(
            f"The interval around the predicted Dice holds the true Dice of {check.inside} of {check.intervals} "
            f"cases ({check.coverage:.0%})."
        )
    if check.without_interval:
        lines.append(f"{check.without_interval} of {failures + good} cases have no such interval.")
    if failures:
        missed = f": {', '.join(check.missed)}" if check.missed else ""
        lines.append(
            f"Of {count(failures, 'failure')} (Dice below {check.failure_dice:g}) the verdicts caught "
            f"{failures - len(check.missed)} ({check.failures['review']} review, {check.failures['reject']} reject) "
            f"and missed {len(check.missed)}{missed}."
        )
    else:
        lines.append(f"No case failed (Dice below {check.failure_dice:g}), so there was nothing to catch.")
    if good:
        words = f"{check.good['accept']} accepted, {check.good['review']} for review, {check.good['reject']} rejected"
        lines.append(f"Of {count(good, 'good case')}: {words}.")
    return lines
