"""Whether the folds of a cross-validation are alike enough that one calibration holds for all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


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


def folds_disagree(figures: Mapping[str, Any]) -> bool:
    """Whether the folds' mean Dice vary more than the cases within a fold.

    The networks then differ, and what was fitted to one need not hold for another.

    Args:
        figures: of a calibration; False if they have no `folds`, as in files of earlier versions.
    """
    spread = figures.get("folds", {})
    return number(spread, "between") > number(spread, "within")


def number(figures: Mapping[str, Any], name: str) -> float:
    """A figure; NaN if it is missing or null, which files contain where it is not defined."""
    value = figures.get(name)
    return math.nan if value is None else float(value)
