"""Reasons to doubt a calibration, as sentences: its cases are too few or too different to support it.

These are warnings; nothing is refused. Temperatures and covering masks remain valid, a weak confidence shows in a
wide interval, and where nothing can be estimated there is no estimate anyway. Only the user can judge what is enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_ext.calibration.model_calibration import Calibration

FEWEST_OF_A_KIND = 5  # failures, and good cases: with 5 failures, a new one is caught with probability 5/6


def fold_spread(dice_of_fold: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Spread of the Dice between the folds, and between the cases within a fold.

    Args:
        dice_of_fold: fold to the Dice of its cases; NaN, where truth and prediction are empty, counts as 0.

    Returns:
        `mean_dice` of each fold; `between`, the standard deviation of these means (n - 1 in the denominator), NaN for
        one fold; and `within`, the standard deviation of the cases around the mean of their own fold, pooled over the
        folds (denominator: number of cases minus number of folds), NaN if each fold has one case.
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
    """One or two sentences per doubt; none for a file of an earlier version that lacks the figures.

    - On cases left out of the fit, the predicted Dice has a larger error than the mean Dice of all cases would have.
    - The folds' mean Dice vary more than the cases within a fold: the networks differ, and what was fitted to one
      need not hold for another, nor for their ensemble.
    - There are fewer failures or good cases than `FEWEST_OF_A_KIND`.
    """
    return [*_of_estimate(calibration), *_of_folds(calibration), *_of_numbers(calibration)]


def _of_estimate(calibration: Calibration) -> list[str]:
    figures = calibration.figures.get("quality", {})
    own, of_mean = _number(figures, "mean_absolute_error"), _number(figures, "mean_absolute_error_of_mean")
    if not own > of_mean:  # also if one is not defined
        return []
    return [
        f"On cases left out of the fit, predicted Dice is off by {own:.3f} on average; the mean of all cases would "
        f"be off by {of_mean:.3f}. {calibration.confidence} does not predict the Dice here. Do not rely on predicted "
        f"Dice and verdict."
    ]


def _of_folds(calibration: Calibration) -> list[str]:
    spread = calibration.figures.get("folds", {})
    between, within = _number(spread, "between"), _number(spread, "within")
    if not between > within:
        return []
    means = ", ".join(f"{name}: {dice:.2f}" for name, dice in spread["mean_dice"].items())
    return [
        f"The folds disagree: the standard deviation of their mean Dice ({means}) is {between:.3f}, within a fold "
        f"{within:.3f}. Predicted Dice and verdict may not hold for all folds together; train the worse ones longer, "
        f"or leave them out with -f of calibrate and predict."
    ]


def _of_numbers(calibration: Calibration) -> list[str]:
    threshold = calibration.threshold
    kinds = (
        (threshold.failures, "fail", "the share of failures that the verdict catches"),
        (threshold.cases - threshold.failures, "are good", "the share of good cases that it does not accept"),
    )
    return [
        f"{count} of {threshold.cases} cases {kind}, fewer than {FEWEST_OF_A_KIND}: {unknown} is very uncertain."
        for count, kind, unknown in kinds
        if count < FEWEST_OF_A_KIND
    ]


def _number(figures: Mapping[str, Any], name: str) -> float:
    """A figure; NaN if it is missing or null, which files contain where it is not defined."""
    value = figures.get(name)
    return math.nan if value is None else float(value)
