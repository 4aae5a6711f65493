"""Reasons to doubt a calibration, as sentences: its cases are too few or too different to support it.

These are warnings; nothing is refused. Covering masks remain valid, and a weak confidence shows in a wide interval.
"""

from __future__ import annotations

from nnunet_ext.calibration.folds import folds_disagree, number
from nnunet_ext.calibration.model_calibration import Calibration

FEWEST_OF_A_KIND = 5  # failures, and good cases: with 5 failures, a new one is caught with probability 5/6


def doubts(calibration: Calibration) -> list[str]:
    """One or two sentences per doubt; none for a file of an earlier version that lacks the figures.

    - On cases left out of the fit, probabilities have a larger negative log-likelihood with the temperature.
    - On cases left out of the fit, the predicted Dice has a larger error than the mean Dice of all cases would have.
    - The folds' mean Dice vary more than the cases within a fold: the networks differ, and what was fitted to one
      need not hold for another, nor for their ensemble.
    - There are fewer failures or good cases than `FEWEST_OF_A_KIND`.
    """
    return [
        *_of_temperature(calibration),
        *_of_estimate(calibration),
        *_of_folds(calibration),
        *_of_numbers(calibration),
    ]


def _of_temperature(calibration: Calibration) -> list[str]:
    figures = calibration.figures.get("temperature", {})
    plain, applied = (figures.get(kind, {}) for kind in ("none", calibration.temperature_kind))
    if not number(applied, "nll") > number(plain, "nll"):
        return []
    return [
        f"On cases left out of the fit, the temperature makes probabilities worse: NLL {number(applied, 'nll'):.4f} "
        f"instead of {number(plain, 'nll'):.4f}, ECE {number(applied, 'ece'):.4f} instead of "
        f"{number(plain, 'ece'):.4f}. Use those of a prediction without --calibrated."
    ]


def _of_estimate(calibration: Calibration) -> list[str]:
    figures = calibration.figures.get("quality", {})
    own, of_mean = number(figures, "mean_absolute_error"), number(figures, "mean_absolute_error_of_mean")
    if not own > of_mean:  # also if one is not defined
        return []
    return [
        f"On cases left out of the fit, predicted Dice is off by {own:.3f} on average; the mean of all cases would "
        f"be off by {of_mean:.3f}. {calibration.confidence} does not predict the Dice here. Do not rely on predicted "
        f"Dice and verdict."
    ]


def _of_folds(calibration: Calibration) -> list[str]:
    if not folds_disagree(calibration.figures):
        return []
    spread = calibration.figures["folds"]
    dice_of_fold = spread.get("mean_dice", {})
    means = ", ".join(f"{name}: {number(dice_of_fold, name):.2f}" for name in dice_of_fold)
    return [
        f"The folds disagree: the standard deviation of their mean Dice ({means}) is {spread['between']:.3f}, within "
        f"a fold {spread['within']:.3f}. What was fitted to one need not hold for another. Train the worse folds "
        f"longer, or leave them out with -f of calibrate and predict."
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
