"""One word per case: accept, review or reject.

Larger values mean more confident. A failure is a case whose mean foreground Dice is strictly below `failure_dice`;
a case whose truth and prediction are both empty has Dice 0 here, as everywhere where Dice is a risk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_ext.calibration.quality import QualityMap, Values, require_calibration_cases

WORDS = ("accept", "review", "reject")


@dataclass(frozen=True)
class Threshold:
    """The confidence at or below which a case is flagged, and its effect on the calibration cases.

    Attributes:
        confidence_threshold: None if no calibration case failed, so that nothing could be fitted.
        failure_dice: a case with a lower Dice is a failure.
        recall: share of the failures that are flagged; None without a failure.
        flagged_good: share of the good cases that are flagged; None without a failure, or without a good case.
        failures: number of calibration cases below `failure_dice`.
        cases: number of all calibration cases.

    Raises:
        ValueError: if there is a threshold without a recall, or the reverse.
    """

    confidence_threshold: float | None
    failure_dice: float
    recall: float | None
    flagged_good: float | None
    failures: int
    cases: int

    def __post_init__(self) -> None:
        if (self.confidence_threshold is None) != (self.recall is None):
            raise ValueError(
                f"A threshold and its recall belong together; found {self.confidence_threshold} and {self.recall}."
            )

    def as_json(self) -> dict[str, Any]:
        """The content that `from_json` takes."""
        return {
            "confidence_threshold": self.confidence_threshold,
            "failure_dice": self.failure_dice,
            "recall": self.recall,
            "flagged_good": self.flagged_good,
            "failures": self.failures,
            "cases": self.cases,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Threshold:
        """The threshold that `as_json` gave; KeyError if something is missing."""
        return cls(
            confidence_threshold=_float_or_none(content["confidence_threshold"]),
            failure_dice=float(content["failure_dice"]),
            recall=_float_or_none(content["recall"]),
            flagged_good=_float_or_none(content["flagged_good"]),
            failures=int(content["failures"]),
            cases=int(content["cases"]),
        )


@dataclass(frozen=True)
class Measure:
    """How messages show a confidence: as a column of `cases.csv`, which may be a negated uncertainty.

    Attributes:
        name: name of the column.
        direction: 1, or -1 if the confidence is the negated column.
    """

    name: str = "confidence"
    direction: int = 1

    def beyond(self, confidence: float, limit: float) -> str:
        """'pairwise_dice 0.52 is below 0.75', 'mean_entropy 0.03 is above 0.02', depending on the side."""
        value, bound = self.direction * confidence, self.direction * limit
        return f"{self.name} {_told_apart(value, bound, 'is below' if value < bound else 'is above')}"

    def at_or_beyond(self, confidence: float, limit: float) -> str:
        """'pairwise_dice 0.52 is at or below 0.75', 'mean_entropy 0.03 is at or above 0.02'."""
        word = "below" if self.direction > 0 else "above"
        return f"{self.name} {self.direction * confidence:.4g} is at or {word} {self.direction * limit:.4g}"


@dataclass(frozen=True)
class Verdict:
    """What to do with a case, and why.

    Attributes:
        word: 'accept', 'review' or 'reject'.
        reason: short sentences, the worst first, with '; ' between them.

    Raises:
        ValueError: if the word is none of these.
    """

    word: str
    reason: str

    def __post_init__(self) -> None:
        if self.word not in WORDS:
            raise ValueError(f"A verdict must be one of {', '.join(WORDS)}; found {self.word!r}.")

    def as_json(self) -> dict[str, str]:
        """The content that `from_json` takes."""
        return {"word": self.word, "reason": self.reason}

    @classmethod
    def from_json(cls, content: Mapping[str, str]) -> Verdict:
        """The verdict that `as_json` gave; KeyError if something is missing."""
        return cls(content["word"], content["reason"])


def fit_threshold(confidence: Values, dice: Values, *, failure_dice: float = 0.75, recall: float = 0.95) -> Threshold:
    """The smallest confidence at or below which at least this share of the calibration failures lies.

    It is the confidence of the k-th least confident of F failures, k = ⌈recall · F⌉. A new failure like them is
    flagged with a probability of at least k/(F + 1): five failures guarantee 0.83, not 0.95.

    Args:
        confidence: (N).
        dice: (N), NaN where truth and prediction are both empty, which counts as 0.
        failure_dice: a case with a lower Dice is a failure.
        recall: share of the failures to flag.

    Raises:
        ValueError: if there are no cases, Dice and confidences differ in number, a confidence is not finite, a Dice
            is outside [0, 1], or `failure_dice` or `recall` is not above 0 and at most 1.
    """
    for name, value in (("failure_dice", failure_dice), ("recall", recall)):
        if not 0 < value <= 1:
            raise ValueError(f"{name} must be above 0 and at most 1; found {value}.")
    confidences, values = require_calibration_cases(confidence, dice)
    failure = values < failure_dice
    failures = int(failure.sum())
    if not failures:
        return Threshold(None, failure_dice, None, None, 0, len(values))
    needed = math.ceil(recall * failures - 1e-9)  # 1e-9: 0.7 · 10 is above 7 because of rounding
    threshold = float(np.sort(confidences[failure])[needed - 1])
    flagged = confidences <= threshold
    return Threshold(
        confidence_threshold=threshold,
        failure_dice=failure_dice,
        recall=float(flagged[failure].mean()),
        flagged_good=None if failure.all() else float(flagged[~failure].mean()),
        failures=failures,
        cases=len(values),
    )


def verdict(
    confidence: float,
    flags: Iterable[str],
    quality: QualityMap,
    threshold: Threshold,
    *,
    measure: Measure | None = None,
    most_confident: float | None = None,
) -> Verdict:
    """What to do with a new case.

    - reject: the predicted Dice is below `failure_dice`.
    - review: there is a flag; the confidence is not finite, outside the range of the calibration cases (on either
      side, see `QualityMap`), or at or below the threshold; or, if no calibration case failed, the interval's lower
      end is below `failure_dice` or there were too few patients for an interval.
    - accept: none of these.

    Args:
        confidence: confidence of the case, the same measure as in calibration.
        flags: words about the case, such as `empty_segmentation`, `all_members_empty` or those of the input checks.
            Any word keeps the case from being accepted.
        quality: predicted Dice as a function of the confidence.
        threshold: fitted to the same cases.
        measure: how the reason shows the confidence; None calls it "confidence".
        most_confident: of the folds, see `QualityMap.interval`; None for one fold.

    Raises:
        TypeError: if the flags are a single text instead of a list.
    """
    if isinstance(flags, str):
        raise TypeError(f"Flags must be a list of words; found the text {flags!r}. Split it at the semicolons.")
    rejecting = _reasons_to_reject(confidence, quality, threshold)
    reviewing = _reasons_to_review(confidence, list(flags), quality, threshold, measure or Measure())
    if rejecting or reviewing:
        return Verdict("reject" if rejecting else "review", "; ".join(rejecting + reviewing))
    interval = quality.interval(confidence, most_confident)
    bounds = (
        f"; {too_few_for_interval(quality)}"
        if interval is None
        else f", interval {interval[0]:.2f} to {interval[1]:.2f} at the level {quality.level:g}"
    )
    return Verdict("accept", f"predicted Dice {quality.predicted_dice(confidence):.2f}{bounds}")


def too_few_for_interval(quality: QualityMap) -> str:
    """'11 patients are too few for an interval at the level 0.9'."""
    return f"{quality.groups} patients are too few for an interval at the level {quality.level:g}"


def _reasons_to_reject(confidence: float, quality: QualityMap, threshold: Threshold) -> list[str]:
    predicted = quality.predicted_dice(confidence)
    if predicted is None or predicted >= threshold.failure_dice:
        return []
    return [f"predicted Dice {_below(predicted, threshold.failure_dice)}"]


def _reasons_to_review(
    confidence: float, flags: list[str], quality: QualityMap, threshold: Threshold, measure: Measure
) -> list[str]:
    reasons = [f"flagged {', '.join(flags)}"] if flags else []
    if not math.isfinite(confidence):
        return [*reasons, f"{measure.name} is {confidence}, which is not finite"]
    if not quality.covers(confidence):
        reasons.append(_unseen(confidence, quality, measure))
    if threshold.confidence_threshold is None:
        interval = quality.interval(confidence)
        if interval is not None and interval[0] < threshold.failure_dice:
            lower_end = _below(interval[0], threshold.failure_dice)
            reasons.append(f"no calibration case failed, and the interval's lower end {lower_end}")
        elif not quality.has_interval:
            reasons.append(f"no calibration case failed, and {too_few_for_interval(quality)}")
    elif confidence <= threshold.confidence_threshold:
        reasons.append(
            f"{measure.at_or_beyond(confidence, threshold.confidence_threshold)}, where calibration found "
            f"{threshold.recall:.0%} of the failures"
        )
    return reasons


def _unseen(confidence: float, quality: QualityMap, measure: Measure) -> str:
    low, high = quality.lowest_confidence, quality.highest_confidence
    limit, words = (low, "least") if confidence < low else (high, "most")
    return f"{measure.beyond(confidence, limit)}, the {words} confident case in calibration: no estimate of the Dice"


def _below(value: float, limit: float) -> str:
    return _told_apart(value, limit, "is below")


def _told_apart(value: float, limit: float, relation: str) -> str:
    """'0.52 is below 0.75', with as many digits as it takes to tell the two numbers apart."""
    for digits in (2, 3, 4, 6):
        if f"{value:.{digits}f}" != f"{limit:.{digits}f}":
            return f"{value:.{digits}f} {relation} {limit:.{digits}f}"
    return f"{value!r} {relation} {limit!r}"


def _float_or_none(value: float | None) -> float | None:
    return None if value is None else float(value)
