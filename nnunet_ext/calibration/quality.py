"""The predicted Dice of a case as a function of its confidence, within the range of the calibration cases.

Larger values mean more confident, so an uncertainty is negated. Dice is the mean foreground Dice of
a case, in [0, 1]; a case whose truth and prediction are both empty has none, and its NaN counts as Dice 0, as it does
in `evaluation.failure_detection`. Such a case is often a *confident* one, as members that are all empty agree.
`verdict` never accepts a case with a flag; fit on the cases without one, so that empty segmentations do not pull the
curve down.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Values = Sequence[float] | np.ndarray
Groups = Sequence[str] | Sequence[int] | np.ndarray

FOLDS = 5
WIDEST = 1.0  # a residual of Dice is never larger


@dataclass(frozen=True)
class QualityMap:
    """Predicted Dice as a non-decreasing function of the confidence, with an interval around it.

    It is defined from the smallest to the largest confidence in calibration. Outside that range there is no
    estimate: below it nothing says how low the Dice is, and above it only monotonicity says that it is high, which a
    case unlike the calibration cases may violate (more air around the patient lowers the mean entropy, and
    over-confident members agree). A new case like the n calibration cases lies beyond either end with a probability
    of at most 1/(n + 1).

    Attributes:
        confidence_knots: (K), ascending, from the smallest to the largest confidence in calibration.
        dice_knots: (K), the predicted Dice there; straight lines between them.
        residual_low: offset of the interval's lower end from the predicted Dice at a knot, in [-1, 0].
        residual_high: offset of its upper end, in [0, 1].
        level: share of new cases whose Dice the interval should contain.
        cases: number of calibration cases.
        groups: number of calibration patients.

    Raises:
        ValueError: if there are no knots, the two kinds differ in number, they do not ascend, or the level is not
            between 0 and 1.
    """

    confidence_knots: tuple[float, ...]
    dice_knots: tuple[float, ...]
    residual_low: float
    residual_high: float
    level: float
    cases: int
    groups: int

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"The level of the interval must be between 0 and 1; found {self.level}.")
        x, y = np.asarray(self.confidence_knots), np.asarray(self.dice_knots)
        if not len(x) or x.shape != y.shape or not (np.diff(x) > 0).all() or not (np.diff(y) >= 0).all():
            raise ValueError(
                f"A quality curve needs knots of ascending confidence whose Dice never falls; found the confidences "
                f"{list(self.confidence_knots)} and the Dice {list(self.dice_knots)}."
            )

    @property
    def lowest_confidence(self) -> float:
        """The smallest confidence in calibration."""
        return self.confidence_knots[0]

    @property
    def highest_confidence(self) -> float:
        """The largest confidence in calibration."""
        return self.confidence_knots[-1]

    @property
    def has_interval(self) -> bool:
        """Whether there were enough patients for an interval at this level, see `patients_for_level`."""
        return self.groups >= patients_for_level(self.level)

    def covers(self, confidence: float) -> bool:
        """Whether the confidence lies in the range of the calibration cases, ends included; False for NaN."""
        return self.lowest_confidence <= confidence <= self.highest_confidence

    def predicted_dice(self, confidence: float) -> float | None:
        """In [0, 1]; None outside the range of the calibration cases, and for NaN."""
        if not self.covers(confidence):
            return None
        return float(np.interp(confidence, self.confidence_knots, self.dice_knots))

    def interval(self, confidence: float, most_confident: float | None = None) -> tuple[float, float] | None:
        """Lower and upper end, in [0, 1], with the predicted Dice between them.

        Between two knots it reaches from the lower one's lower end to the upper one's upper end: all non-decreasing
        curves through both fit the cases equally well, and the straight line is only one of them. Where
        knots are dense this changes little; across a gap in the confidence, as between two folds of very different
        quality, the interval is widened by the difference of the Dice on its two sides.

        An ensemble of several folds is at least as good as its folds are on average and seldom better than the best
        of them. With `most_confident`, the confidence of the most confident fold, the interval therefore reaches up
        to the end that it has there; to 1 if that fold is more confident than all calibration cases.

        None where there is no estimate, and if there were too few patients: 0 to 1 would always be right and say
        nothing.

        Args:
            confidence: of the case; of several folds their mean.
            most_confident: of the folds; None for one fold.
        """
        predicted = self.predicted_dice(confidence)
        if predicted is None or not self.has_interval:
            return None
        below = self.dice_knots[bisect.bisect_right(self.confidence_knots, confidence) - 1]
        highest = confidence if most_confident is None else most_confident
        knot = bisect.bisect_left(self.confidence_knots, highest)
        upper = self.dice_knots[knot] + self.residual_high if knot < len(self.dice_knots) else 1.0
        return max(0.0, below + self.residual_low), min(1.0, upper)

    def as_json(self) -> dict[str, Any]:
        """The content that `from_json` takes."""
        return {
            "confidence_knots": list(self.confidence_knots),
            "dice_knots": list(self.dice_knots),
            "residual_low": self.residual_low,
            "residual_high": self.residual_high,
            "level": self.level,
            "cases": self.cases,
            "groups": self.groups,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> QualityMap:
        """The curve that `as_json` gave; KeyError if something is missing."""
        return cls(
            confidence_knots=tuple(float(value) for value in content["confidence_knots"]),
            dice_knots=tuple(float(value) for value in content["dice_knots"]),
            residual_low=float(content["residual_low"]),
            residual_high=float(content["residual_high"]),
            level=float(content["level"]),
            cases=int(content["cases"]),
            groups=int(content["groups"]),
        )


def patients_for_level(level: float) -> int:
    """The fewest patients that allow an interval at a level: the G with (G - 1)/(G + 1) at least that."""
    return math.ceil((1 + level) / (1 - level) - 1e-9)  # 1e-9: 1.9/0.1 is 19 up to rounding


def fit_quality(confidence: Values, dice: Values, groups: Groups, level: float = 0.9) -> QualityMap:
    """The non-decreasing curve that fits the calibration cases best by least squares (isotonic regression).

    The interval adds two numbers to the predicted Dice: a low and a high quantile of the residuals (Dice minus
    predicted Dice). Residuals come from curves fitted without the case's patient (constant beyond their own range):
    each patient is left out in turn or, with more than five patients, five groups of them are. In the quantiles all
    patients have the same weight, divided among their cases, and one extra patient is assumed to lie beyond all
    others, as in conformal prediction with hierarchical data (Lee, Barber and Willett 2023, arXiv 2306.06342). With
    one case per patient these are the usual quantiles of n + 1. So G patients allow no level above (G - 1)/(G + 1):
    fewer than 19 give no interval at level 0.9.

    The residuals belong to curves fitted to fewer cases and not to the curve itself, so the level is a target, not a
    guarantee (Barber et al. 2021, "Predictive inference with the jackknife+", arXiv 1905.02928). It refers to all new
    patients like those in calibration together, not to each confidence value, and not after a distribution shift.

    Constant confidence gives one knot, the mean Dice.

    Args:
        confidence: (N).
        dice: (N), NaN where truth and prediction are both empty, which counts as 0.
        groups: (N), the patient of each case.
        level: share of new cases whose Dice the interval should contain.

    Raises:
        ValueError: if there are no cases, the arrays differ in length, a confidence is not finite, a Dice
            is outside [0, 1], or the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"The level of the interval must be between 0 and 1; found {level}. Use 0.9.")
    confidences, values = require_calibration_cases(confidence, dice)
    patients = np.unique(np.asarray(groups), return_inverse=True)[1].ravel()  # (N): 0 to G - 1
    if patients.shape != values.shape:
        raise ValueError(f"Every case needs its patient; found {len(patients)} of {len(values)} cases.")
    count = int(patients.max()) + 1
    low, high = -WIDEST, WIDEST
    if count > 1:
        residuals = _cross_fitted_residuals(confidences, values, patients, folds=min(count, FOLDS))
        upper = (1 + level) / 2
        high = max(0.0, _quantile_of_patients(residuals, patients, upper))
        low = min(0.0, -_quantile_of_patients(-residuals, patients, upper))
    x, y = _isotonic_knots(confidences, values)
    return QualityMap(tuple(x.tolist()), tuple(y.tolist()), low, high, level, len(values), count)


def require_calibration_cases(confidence: Values, dice: Values) -> tuple[np.ndarray, np.ndarray]:
    """Confidences (N) and Dice (N) in float64, the Dice of empty cases (NaN) as 0.

    Raises:
        ValueError: if there are no cases, the arrays differ in length, a confidence is not finite, or a Dice
            is outside [0, 1].
    """
    confidences, values = np.asarray(confidence, dtype=np.float64), np.asarray(dice, dtype=np.float64)
    if values.ndim != 1 or values.shape != confidences.shape or not values.size:
        raise ValueError(
            f"Every case needs one Dice and one confidence, and at least one case is needed; found the shapes "
            f"{values.shape} and {confidences.shape}."
        )
    if not np.isfinite(confidences).all():
        case = int(np.flatnonzero(~np.isfinite(confidences))[0])
        raise ValueError(
            f"Every confidence must be finite; found {confidences[case]} for case {case} of {confidences.size}. The "
            f"pairwise Dice of a single member is NaN: predict with more members, or use another confidence."
        )
    values = np.where(np.isnan(values), 0.0, values)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"Dice must be in [0, 1]; found {values.min()} to {values.max()}.")
    return confidences, values


def _isotonic_knots(confidence: np.ndarray, dice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K) and (K). Cases of equal confidence are merged into their mean."""
    from sklearn.isotonic import IsotonicRegression  # imported here, because it takes seconds

    fitted = IsotonicRegression(y_min=0, y_max=1, increasing=True, out_of_bounds="clip").fit(confidence, dice)
    return fitted.X_thresholds_, fitted.y_thresholds_


def _cross_fitted_residuals(
    confidence: np.ndarray, dice: np.ndarray, patients: np.ndarray, *, folds: int
) -> np.ndarray:
    """(N): Dice minus that of a curve fitted without the fold of the case's patient."""
    from sklearn.model_selection import GroupKFold  # imported here, because it takes seconds

    residuals = np.empty_like(dice)
    for others, fold in GroupKFold(folds).split(confidence, groups=patients):
        residuals[fold] = dice[fold] - np.interp(confidence[fold], *_isotonic_knots(confidence[others], dice[others]))
    return residuals


def _quantile_of_patients(residuals: np.ndarray, patients: np.ndarray, share: float) -> float:
    """The smallest residual at or below which `share` of the weight lies; 1 if that includes the extra patient.

    Each of the G patients has the weight 1/(G + 1), divided among its cases; the last 1/(G + 1) is above all.
    """
    sizes = np.bincount(patients)
    order = np.argsort(residuals, kind="stable")
    weight = np.cumsum(1 / sizes[patients[order]]) / (len(sizes) + 1)
    enough = np.flatnonzero(weight >= share - 1e-9)  # 1e-9: sums of such fractions are off by rounding
    return float(residuals[order][enough[0]]) if enough.size else WIDEST
