"""Fits a calibration to the predicted cases of a cross-validation, and measures it on cases left out of the fit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch

from nnunet_ext.calibration.calibration_case import CalibrationCase
from nnunet_ext.calibration.fit_checks import require_patients
from nnunet_ext.calibration.folds import fold_spread
from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.calibration.quality import fit_quality
from nnunet_ext.calibration.risk_control import MaskThreshold, MissCounts, fit_mask_threshold
from nnunet_ext.calibration.temperature import Temperature, fit_temperature
from nnunet_ext.calibration.verdict import fit_threshold, verdict
from nnunet_ext.evaluation import calibration_error, proper_scores
from nnunet_ext.evaluation.confidences import DIRECTIONS, confidence_of, usable_columns
from nnunet_ext.evaluation.failure_table import detection_figures
from nnunet_ext.evaluation.held_out_parts import held_out_parts
from nnunet_ext.options import AUTOMATIC, FitOptions

DEFAULT_MISS_RATE = 0.1
FIXED = "fixed"  # the kind of a temperature that was given


def fit_calibration(
    cases: Sequence[CalibrationCase],
    options: FitOptions,
    *,
    regions: bool,
    settings: Mapping[str, Any],
    fitted_on: Mapping[str, Any],
) -> Calibration:
    """Fits temperature, quality curve, threshold of the verdict and mask.

    Cases with a flag, such as an empty segmentation, are left out of quality curve and threshold: their confidence
    means something else, and the verdict never accepts them.

    Args:
        cases: predicted by members that were not trained on them.
        options: the user's choices.
        regions: whether the outputs are regions.
        settings: settings of the ensemble.
        fitted_on: what to record about the members.

    Raises:
        ValueError: if there are too few cases, or an option does not apply to them.
    """
    patients = require_patients("Calibration", [case.patient for case in cases])
    judged = [case for case in cases if not case.row["flags"]] or list(cases)
    column = chosen_column(judged, options)
    confidence = [confidence_of(case.row, column) for case in judged]
    dice = [case.dice for case in judged]
    kinds = temperatures_of(cases, options, regions=regions)
    return Calibration(
        temperature=kinds[options.temperature if isinstance(options.temperature, str) else FIXED],
        confidence=column,
        quality=fit_quality(confidence, dice, [case.patient for case in judged], options.level),
        threshold=fit_threshold(confidence, dice, failure_dice=options.failure_dice, recall=options.recall),
        mask=mask_of(cases, options.miss_rate),
        settings=settings,
        fitted_on={
            **fitted_on,
            "cases": len(cases),
            "patients": patients,
            "flagged_cases": len(cases) - len(judged),
            "temperatures": {kind: temperature.as_json() for kind, temperature in kinds.items()},
        },
        figures={
            "temperature": held_out_temperature(cases, options, regions=regions),
            "confidences": confidence_figures(judged, options.failure_dice),
            "quality": held_out_quality(judged, column, options),
            "folds": fold_spread(dice_of_folds(judged)),
        },
        cases=[{"case": case.case, "patient": case.patient, **case.row, "dice": case.dice} for case in cases],
    )


def chosen_column(cases: Sequence[CalibrationCase], options: FitOptions) -> str:
    """The confidence column that was asked for, or the one with the lowest AURC on these cases (the first of ties).

    Where all others order these few cases worse than chance, a column that is the same for all cases would have the
    lowest AURC, and says nothing about a new case. So one that gives more than half of the cases the same value is
    never chosen automatically.

    Raises:
        ValueError: if the requested column is unknown, or not every case has it; if no column can be chosen.
    """
    usable = usable_columns([case.row for case in cases])
    if options.confidence == AUTOMATIC:
        telling = [column for column in usable if tells_apart([confidence_of(case.row, column) for case in cases])]
        if not telling:
            raise ValueError(
                f"A confidence must differ between cases; each of {', '.join(usable)} is the same for most of the "
                f"{len(cases)} cases. Use more cases, or name a column with --confidence."
            )
        figures = confidence_figures(cases, options.failure_dice)
        return min(telling, key=lambda column: figures[column]["aurc"])
    if options.confidence not in usable:
        raise ValueError(
            f"The confidence must be a column that every case has, {', '.join(usable)}, or {AUTOMATIC}; found "
            f"{options.confidence!r}. pairwise_dice and mutual_information need at least two members "
            f"per fold, see --tta-members."
        )
    return options.confidence


def tells_apart(confidence: Sequence[float]) -> bool:
    """Whether no value is that of more than half of the cases."""
    return 2 * max(Counter(confidence).values()) <= len(confidence)


def confidence_figures(cases: Sequence[CalibrationCase], failure_dice: float) -> dict[str, dict[str, float]]:
    """How well each column that all cases have detects the failures among them."""
    dice = np.nan_to_num([case.dice for case in cases])  # empty truth and prediction: Dice 0
    return {
        column: detection_figures(
            dice, [confidence_of(case.row, column) for case in cases], failure_dice=failure_dice
        )
        for column in usable_columns([case.row for case in cases])
        if column in DIRECTIONS
    }


def temperatures_of(
    cases: Sequence[CalibrationCase], options: FitOptions, *, regions: bool
) -> dict[str, Temperature]:
    """The temperatures of all kinds: both that are fitted, and the fixed one if it was asked for."""
    kinds = {
        "global": temperature_of(cases, regions=regions, per_class=False),
        "per-class": temperature_of(cases, regions=regions, per_class=True),
    }
    if isinstance(options.temperature, str):
        return kinds
    outputs = len(kinds["global"].values)
    return kinds | {FIXED: Temperature((float(options.temperature),) * outputs, regions)}


def temperature_of(cases: Sequence[CalibrationCase], *, regions: bool, per_class: bool) -> Temperature:
    """The temperature of all voxels of the cases."""
    return fit_temperature(
        np.concatenate([case.probabilities for case in cases], axis=1),
        np.concatenate([case.truth for case in cases], axis=-1),
        per_class=per_class,
        regions=regions,
    )


def mask_of(cases: Sequence[CalibrationCase], miss_rate: float | None) -> MaskThreshold | None:
    """The threshold of the mask; None if none was asked for and there are too few patients for the default."""
    misses: dict[str, MissCounts] = {}
    for case in cases:
        misses[case.patient] = misses.get(case.patient, MissCounts.empty()) + case.misses
    with_foreground = sum(1 for counts in misses.values() if counts.foreground)
    if miss_rate is None and DEFAULT_MISS_RATE * (with_foreground + 1) < 1:
        return None
    return fit_mask_threshold(misses, DEFAULT_MISS_RATE if miss_rate is None else miss_rate)


# --- measured on cases left out of the fit ---


def held_out_temperature(
    cases: Sequence[CalibrationCase], options: FitOptions, *, regions: bool
) -> dict[str, dict[str, float]]:
    """Mean ECE and NLL of cases uncalibrated, and with temperatures fitted to the other cases."""
    measured: dict[str, list[CalibratedFigures]] = {}
    for fitting, measuring in held_out_parts(cases):
        if not any(case.truth.size for case in fitting):
            continue
        kinds: dict[str, Temperature | None] = {"none": None, **temperatures_of(fitting, options, regions=regions)}
        for kind, temperature in kinds.items():
            measured.setdefault(kind, []).extend(
                calibrated_figures(case, temperature, regions=regions) for case in measuring if case.truth.size
            )
    return {
        kind: {"ece": fmean(one.ece for one in found), "nll": fmean(one.nll for one in found), "cases": len(found)}
        for kind, found in measured.items()
        if found
    }


@dataclass(frozen=True)
class CalibratedFigures:
    """Calibration of one case's voxels."""

    ece: float
    nll: float


def calibrated_figures(case: CalibrationCase, temperature: Temperature | None, *, regions: bool) -> CalibratedFigures:
    """ECE and NLL of the voxels of a case, with a temperature or uncalibrated."""
    probabilities = case.probabilities
    if temperature is not None:
        probabilities = temperature.apply(torch.from_numpy(probabilities)).numpy()
    ece: Callable[..., float] = (
        calibration_error.region_expected_calibration_error
        if regions
        else calibration_error.expected_calibration_error
    )
    nll: Callable[..., float] = (
        proper_scores.region_negative_log_likelihood if regions else proper_scores.negative_log_likelihood
    )
    return CalibratedFigures(ece=ece(probabilities, case.truth), nll=nll(probabilities, case.truth))


def held_out_quality(cases: Sequence[CalibrationCase], column: str, options: FitOptions) -> dict[str, float | int]:
    """Predicted Dice and verdicts of cases from fits to the other cases.

    Returns:
        `cases`, how many were left out in turn; `without_estimate`, how many had a confidence outside the range of
        the others; for the rest `mean_absolute_error` of the predicted Dice, and that of the mean of all cases as
        `mean_absolute_error_of_mean`; `intervals`, how many cases had one, and `interval_coverage`, the share of
        these that contain the true Dice; `failures` among all, and `failures_not_accepted` and `good_not_accepted`
        as shares. NaN where there is none to measure.
    """
    errors, errors_of_mean, covered, failed, accepted = [], [], [], [], []
    mean_dice = fmean(float(np.nan_to_num(case.dice)) for case in cases)
    for fitting, measuring in held_out_parts(cases):
        if len({case.patient for case in fitting}) < 2:
            continue
        confidence = [confidence_of(case.row, column) for case in fitting]
        dice = [case.dice for case in fitting]
        quality = fit_quality(confidence, dice, [case.patient for case in fitting], options.level)
        threshold = fit_threshold(confidence, dice, failure_dice=options.failure_dice, recall=options.recall)
        for case in measuring:
            own, truth = confidence_of(case.row, column), float(np.nan_to_num(case.dice))
            predicted, interval = quality.predicted_dice(own), quality.interval(own)
            if predicted is not None:
                errors.append(abs(predicted - truth))
                errors_of_mean.append(abs(mean_dice - truth))
            if interval is not None:
                covered.append(interval[0] <= truth <= interval[1])
            failed.append(truth < options.failure_dice)
            accepted.append(verdict(own, list(case.row["flags"]), quality, threshold).word == "accept")
    stopped = [not word for word in accepted]
    return {
        "cases": len(failed),
        "without_estimate": len(failed) - len(errors),
        "mean_absolute_error": fmean(errors) if errors else math.nan,
        "mean_absolute_error_of_mean": fmean(errors_of_mean) if errors_of_mean else math.nan,
        "intervals": len(covered),
        "interval_coverage": fmean(covered) if covered else math.nan,
        "failures": sum(failed),
        "failures_not_accepted": share_where(stopped, failed),
        "good_not_accepted": share_where(stopped, [not failure for failure in failed]),
    }


def dice_of_folds(cases: Sequence[CalibrationCase]) -> dict[str, list[float]]:
    """The Dice of the cases of each fold."""
    return {
        fold: [case.dice for case in cases if case.fold == fold] for fold in sorted({case.fold for case in cases})
    }


def share_where(values: Sequence[bool], chosen: Sequence[bool]) -> float:
    """Share of the chosen values that are true; NaN if none is chosen."""
    found = [value for value, take in zip(values, chosen, strict=True) if take]
    return fmean(found) if found else math.nan
