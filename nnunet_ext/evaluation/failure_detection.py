"""How well a confidence tells good cases from bad ones.

Sign conventions and ranges. Larger values mean more confident, so an uncertainty is negated. Risk is
what is lost if the case is accepted, here 1 - mean foreground Dice, in [0, 1]; a case whose truth and prediction are
both empty has no Dice and counts as risk 1.

- AURC, in [0, 1], and E-AURC: smaller is better
- AUGRC, in [0, 0.5]: smaller is better
- failure AUROC, in [0, 1]: larger is better, 0.5 is chance; failure is the positive class
- FPR at 95% TPR, in [0, 1]: smaller is better; failure is the positive class
- Spearman's and Pearson's correlation of confidence and risk, in [-1, 1]: -1 is best

Every function takes one number per case, in any order of the cases. Cases of equal confidence are accepted together,
so their order never changes a figure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Values = Sequence[float] | np.ndarray


def aurc(risk: Values, confidence: Values) -> float:
    """Area under the curve of the selective risk over coverage, in [0, 1]; smaller is better.

    The mean selective risk over all coverages (Geifman et al. 2019, arXiv 1805.08206; for risks
    other than 0 and 1: Zenk et al. 2025, arXiv 2406.03323). Trapezoids between the points of
    `risk_coverage_curve`; below the first one the risk is constant. A constant confidence gives the mean risk.

    Between two points the selective risk is curved and a straight line is not. So confidences with many ties look a
    little better than they are; compare those with `augrc`, where the line is exact.

    Args:
        risk: (N).
        confidence: (N).

    Returns:
        The area, within the range of the risks.

    Raises:
        ValueError: if there are no cases, risks and confidences differ in number, or a value is not finite.
    """
    coverages, risks = risk_coverage_curve(risk, confidence)
    return _area(np.r_[0, coverages], np.r_[risks[0], risks])


def excess_aurc(risk: Values, confidence: Values) -> float:
    """E-AURC: AURC minus that of `best_confidence`; smaller is better.

    0 if the confidences differ and order the cases as their risks do (Geifman et al. 2019). Ties of the confidence
    can bring it below 0, for the reason that `aurc` gives.

    Arguments and errors are those of `aurc`.
    """
    return aurc(risk, confidence) - aurc(risk, best_confidence(risk))


def best_confidence(risk: Values) -> np.ndarray:
    """Confidences that order the cases by their risks, (N); all differ, as cases of equal risk come one by one.

    The negated risk would join these by a straight line, although the curve between them bends: a confidence without
    ties could not reach it.
    """
    confidence = np.empty(len(risk))
    confidence[np.argsort(risk, kind="stable")] = -np.arange(len(risk))
    return confidence


def augrc(risk: Values, confidence: Values) -> float:
    """Area under the curve of the generalised risk over coverage, in [0, 0.5]; smaller is better.

    The generalised risk is the sum of the accepted cases' risks divided by the number of *all* cases: for failures,
    the probability that a case fails and is accepted. Its area is the mean risk that goes undetected (Traub et al.
    2024, "Overcoming Common Flaws in the Evaluation of Selective Classification Systems", arXiv 2407.01032). Unlike
    AURC, it is not dominated by a few confident failures. A constant confidence gives half of the mean risk. Where
    risks are 0 or 1 and the share f of the cases fails, AUGRC = (1 - AUROC) f (1 - f) + f² / 2.

    Arguments and errors are those of `aurc`.
    """
    coverages, risks = risk_coverage_curve(risk, confidence)
    return _area(np.r_[0, coverages], np.r_[0, risks * coverages])


def risk_coverage_curve(risk: Values, confidence: Values) -> tuple[np.ndarray, np.ndarray]:
    """Mean risk of the accepted cases at every coverage that a threshold of the confidence gives.

    Arguments and errors are those of `aurc`.

    Returns:
        coverages: (K), ascending, the last is 1; K is the number of different confidences.
        selective risks: (K).
    """
    risks, confidences = _require_cases("risk", risk, confidence)
    order = np.lexsort(
        (risks, -confidences)
    )  # by risk within ties, so that not even the rounding depends on the order
    risks, confidences = risks[order], confidences[order]
    last_of_its_ties = np.r_[confidences[1:] != confidences[:-1], True]
    accepted = np.flatnonzero(last_of_its_ties) + 1
    return accepted / len(risks), np.cumsum(risks)[last_of_its_ties] / accepted


def failure_auroc(dice: Values, confidence: Values, *, threshold: float = 0.75) -> float:
    """Probability that a failure is less confident than a good case, in [0, 1]; larger is better, 0.5 is chance.

    The area under the receiver operating characteristic with failure as the positive class and the negated
    confidence as its score.

    Args:
        dice: (N), mean foreground Dice of each case.
        confidence: (N).
        threshold: a case with a Dice strictly below this is a failure.

    Returns:
        The probability; NaN if all cases are failures, or none is.

    Raises:
        ValueError: if there are no cases, Dice and confidences differ in number, or a value is not finite.
    """
    failure, confidences = _failures(dice, confidence, threshold)
    if failure.all() or not failure.any():
        return float("nan")
    from sklearn.metrics import roc_auc_score  # imported here, because it takes seconds

    return float(roc_auc_score(failure, -confidences))


def fpr_at_95_tpr(dice: Values, confidence: Values, *, threshold: float = 0.75) -> float:
    """Share of good cases that are flagged when at least 95% of the failures are, in [0, 1]; smaller is better.

    Failure is the positive class. Some papers take the good cases as positive and read the same curve from its other
    end; their numbers are not comparable.

    Arguments, errors and NaN are those of `failure_auroc`.
    """
    failure, confidences = _failures(dice, confidence, threshold)
    if failure.all() or not failure.any():
        return float("nan")
    from sklearn.metrics import roc_curve  # imported here, because it takes seconds

    false_positive_rates, true_positive_rates, _ = roc_curve(failure, -confidences, drop_intermediate=False)
    return float(false_positive_rates[true_positive_rates >= 0.95].min())


def spearman(risk: Values, confidence: Values) -> float:
    """Spearman's rank correlation of confidence and risk, in [-1, 1]; -1 is best. Ties get their mean rank.

    Arguments and errors are those of `aurc`.

    Returns:
        The correlation; NaN if either is constant, as for a single case.
    """
    risks, confidences = _require_cases("risk", risk, confidence)
    if np.ptp(risks) == 0 or np.ptp(confidences) == 0:
        return float("nan")
    from scipy.stats import spearmanr  # imported here, because it takes a second

    return float(spearmanr(confidences, risks).statistic)


def pearson(risk: Values, confidence: Values) -> float:
    """Pearson's linear correlation of confidence and risk, in [-1, 1]; -1 is best.

    Arguments, errors and NaN are those of `spearman`.
    """
    risks, confidences = _require_cases("risk", risk, confidence)
    if np.ptp(risks) == 0 or np.ptp(confidences) == 0:
        return float("nan")
    from scipy.stats import pearsonr  # imported here, because it takes a second

    return float(pearsonr(confidences, risks).statistic)


def _area(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.diff(x) @ (y[1:] + y[:-1]) / 2)


def _failures(dice: Values, confidence: Values, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    values, confidences = _require_cases("dice", dice, confidence)
    return values < threshold, confidences


def _require_cases(name: str, values: Values, confidence: Values) -> tuple[np.ndarray, np.ndarray]:
    """(N) and (N) in float64."""
    found, confidences = np.asarray(values, dtype=np.float64), np.asarray(confidence, dtype=np.float64)
    if found.ndim != 1 or found.shape != confidences.shape or not found.size:
        raise ValueError(
            f"Every case needs one {name} and one confidence, and at least one case is needed; found the shapes "
            f"{found.shape} and {confidences.shape}."
        )
    for kind, array in ((name, found), ("confidence", confidences)):
        if not np.isfinite(array).all():
            case = int(np.flatnonzero(~np.isfinite(array))[0])
            raise ValueError(
                f"Every {kind} must be finite; found {array[case]} for case {case} of {array.size}. A case whose "
                f"truth and prediction are both empty has Dice 0 and risk 1 here."
            )
    return found, confidences
