"""A calibration as text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_ext.calibration.doubts import doubts
from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.calibration.quality import QualityMap, patients_for_level
from nnunet_ext.evaluation.confidences import BETWEEN_MEMBERS, needs_more_members

NAMES = {"none": "uncalibrated", "global": "one temperature", "per-class": "one per class", "fixed": "as given"}


def calibration_lines(calibration: Calibration) -> list[str]:
    """What was fitted, and how well it does on cases that were left out of the fit."""
    fitted = calibration.fitted_on
    lines = [
        f"Fitted on {fitted['cases']} cases of {fitted['patients']} patients, folds {' '.join(fitted['folds'])}.",
        "",
        f"{'probabilities':18}{'ECE':>8}{'NLL':>8}    on cases left out of the fit",
    ]
    for kind, figures in calibration.figures["temperature"].items():
        mark = "  <- applied" if kind == calibration.temperature_kind else ""
        lines.append(f"{NAMES[kind]:18}{figures['ece']:8.4f}{figures['nll']:8.4f}{mark}")
    values = ", ".join(f"{value:.3f}" for value in dict.fromkeys(calibration.temperature.values))
    lines += [f"temperature {values}", "", f"{'confidence':20}{'AURC':>8}{'AUROC':>8}{'Spearman':>10}"]
    for column, found in calibration.figures["confidences"].items():
        mark = "  <- chosen" if column == calibration.confidence else ""
        auroc, spearman = (number(found[key], 3) for key in ("failure_auroc", "spearman"))
        lines.append(f"{column:20}{number(found['aurc'], 4):>8}{auroc:>8}{spearman:>10}{mark}")
    return [
        *lines,
        *one_member_lines(calibration.cases),
        "",
        *verdict_lines(calibration),
        *mask_lines(calibration),
        *doubt_lines(calibration),
    ]


def doubt_lines(calibration: Calibration) -> list[str]:
    """Reasons not to rely on it; nothing if there are none."""
    found = doubts(calibration)
    return ["", *(f"Warning: {doubt}" for doubt in found)] if found else []


def one_member_lines(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """A note if each case had one member, so that disagreement is undefined, and how to get more; else nothing."""
    if not cases or not all(needs_more_members(case, column) for case in cases for column in BETWEEN_MEMBERS):
        return []
    return [
        *(f"{column:20}{'-':>8}{'-':>8}{'-':>10}" for column in BETWEEN_MEMBERS),
        "One member per fold: disagreement between members is not defined. To get more members: --tta-members, "
        "--members samples for a Cyclical training, or --members mc-dropout for a network with dropout.",
    ]


def verdict_lines(calibration: Calibration) -> list[str]:
    """How well predicted Dice and verdict did on cases left out of the fit."""
    figures: Mapping[str, float] = calibration.figures["quality"]
    threshold = calibration.threshold
    if not figures["cases"]:
        return ["Too few patients to measure predicted Dice and verdict on cases left out of the fit."]
    lines = estimate_lines(figures, calibration.quality)
    if threshold.failures:
        lines.append(
            f"{threshold.failures} of {threshold.cases} cases fail (Dice below {threshold.failure_dice:g}). When "
            f"left out of the fit, {percent(figures['failures_not_accepted'])} of the failures and "
            f"{percent(figures['good_not_accepted'])} of the good cases are not accepted."
        )
    else:
        lines.append(
            f"No case fails (Dice below {threshold.failure_dice:g}), so no threshold could be fitted: "
            + (
                "verdicts are based on the interval."
                if calibration.quality.has_interval
                else "without an interval, every verdict is review."
            )
        )
    return lines


def estimate_lines(figures: Mapping[str, float], quality: QualityMap) -> list[str]:
    """How far off predicted Dice is, whether its interval holds, and how many cases have no estimate."""
    cases, without, error = figures["cases"], figures["without_estimate"], figures["mean_absolute_error"]
    lines = []
    if without < cases:
        lines += [
            f"On cases left out of the fit, predicted Dice is off by {error:.3f} on average.",
            interval_line(figures, quality),
        ]
    if without:
        lines.append(
            f"No estimate for {without} of {cases} cases left out of the fit, whose verdict is review: their "
            f"confidence is outside the range of the others."
        )
    return lines


def interval_line(figures: Mapping[str, float], quality: QualityMap) -> str:
    """How often the interval held for cases left out, or why there is none or its coverage is not known."""
    needed = patients_for_level(quality.level)
    if not quality.has_interval:
        return (
            f"No interval around it: a {quality.level:.0%} interval needs at least {needed} patients, found "
            f"{quality.groups}. Calibrate with more folds, or choose a lower --level."
        )
    if not figures["intervals"]:
        return (
            f"The coverage of its {quality.level:.0%} interval could not be measured: without the cases left out "
            f"there are fewer than the {needed} patients that it needs."
        )
    held = f"{figures['interval_coverage']:.0%} of {figures['intervals']}"
    return f"Its {quality.level:.0%} interval held for {held} cases left out of the fit."


def mask_lines(calibration: Calibration) -> list[str]:
    """The covering mask, or why there is none."""
    mask = calibration.mask
    if mask is None:
        return ["No covering mask: a miss rate of 0.1 needs at least 9 patients with foreground."]
    return [
        f"Covering masks include voxels with a foreground probability of {mask.threshold:.2g} or more, to miss at "
        f"most {mask.alpha:.0%} of a patient's foreground on average."
    ]


def number(value: float | None, digits: int) -> str:
    """A figure, or a dash where it is not defined: NaN as fitted, null as read from the file."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share, or a dash."""
    return "-" if value is None or math.isnan(value) else f"{value:.0%}"
