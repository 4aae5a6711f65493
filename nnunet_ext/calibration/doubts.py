"""Reasons to doubt a calibration, in words: what it was fitted to cannot carry what it says.

They warn and refuse nothing. Temperatures and covering masks stay right, a weak confidence shows in a wide interval,
and where nothing can be estimated there is no estimate already. Only a person knows whether that is enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_ext.calibration.model_calibration import Calibration

FEWEST_OF_A_KIND = 5  # failures, and good cases: of a new failure, 5 promise to catch 5/6


def fold_spread(dice_of_fold: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """How far the folds' Dice lie apart, and how far the cases within them.

    Args:
        dice_of_fold: fold to the Dice of its cases; NaN, where truth and prediction are empty, counts as 0.

    Returns:
        `mean_dice` of each fold; `between`, the standard deviation of these means (by n - 1), NaN of one fold; and
        `within`, the standard deviation of the cases around the mean of their own fold, pooled over the folds (by
        the number of cases less that of folds), NaN if each fold has one case.
    """
    folds = {name: np.nan_to_num(np.asarray(dice, dtype=np.float64)) for name, dice in dice_of_fold.items()}
    means = {name: float(dice.mean()) for name, dice in folds.items()}
    free = sum(len(dice) for dice in folds.values()) - len(folds)
    squares = sum(float(((dice - dice.mean()) ** 2).sum()) for dice in folds.values())
    return {
        "mean_dice": means,
        "between": float(np.std(list(means.values()), ddof=1)) if len(means) > 1 else math.nan,
        "within": math.sqrt(squares / free) if free else math.nan,
    }


def doubts(calibration: Calibration) -> list[str]:
    """One sentence or two a doubt; none of a file of an earlier version whose figures lack what it takes.

    - The predicted Dice of cases left out is further off than the mean Dice of all cases would be.
    - The folds' mean Dice scatter more than the cases within a fold: the networks differ, and what was learnt from
      one does not hold for the other, nor for their ensemble.
    - Failures or good cases are fewer than `FEWEST_OF_A_KIND`.
    """
    return [*_of_estimate(calibration), *_of_folds(calibration), *_of_numbers(calibration)]


def _of_estimate(calibration: Calibration) -> list[str]:
    figures = calibration.figures.get("quality", {})
    own, of_mean = _number(figures, "mean_absolute_error"), _number(figures, "mean_absolute_error_of_mean")
    if not own > of_mean:  # also if one is not defined
        return []
    return [
        f"On cases left out, predicted Dice is off by {own:.3f} on average; the mean of all cases would be off by "
        f"{of_mean:.3f}. {calibration.confidence} does not tell the Dice here. Do not rely on predicted Dice and "
        f"verdict."
    ]


def _of_folds(calibration: Calibration) -> list[str]:
    spread = calibration.figures.get("folds", {})
    between, within = _number(spread, "between"), _number(spread, "within")
    if not between > within:
        return []
    means = ", ".join(f"{name}: {dice:.2f}" for name, dice in spread["mean_dice"].items())
    return [
        f"The folds disagree: their mean Dice ({means}) scatter by {between:.3f}, the cases within a fold by "
        f"{within:.3f}. Predicted Dice and verdict may not hold for all folds together; train the worse ones longer, "
        f"or leave them out of calibrate and predict with -f."
    ]


def _of_numbers(calibration: Calibration) -> list[str]:
    threshold = calibration.threshold
    kinds = (
        (threshold.failures, "fail", "how many failures the verdict catches"),
        (threshold.cases - threshold.failures, "are good", "how many good cases the verdict stops"),
    )
    return [
        f"{count} of {threshold.cases} cases {kind}, fewer than {FEWEST_OF_A_KIND}: {unknown} is hardly known."
        for count, kind, unknown in kinds
        if count < FEWEST_OF_A_KIND
    ]


def _number(figures: Mapping[str, Any], name: str) -> float:
    """A figure; NaN if it is not there or null, as files hold what is not defined."""
    value = figures.get(name)
    return math.nan if value is None else float(value)
