"""How well an uncertainty map shows where the segmentation is wrong.

Sign conventions and ranges. Larger values of a map mean more uncertainty; pass a confidence map as 1 - confidence.

- error AUROC, in [0, 1]: larger is better, 0.5 is chance; an error is the positive class
- error average precision, in [0, 1]: larger is better, the share of errors is chance
- QU-BraTS score, in [0, 1]: larger is better; an all-zero map has (Dice + 2)/3
- QU-BraTS gain over the all-zero map, in [-1, 1/3]: larger is better, below 0 the map is harmful

All of them are NaN where no voxel counts. A mask says which ones do, for instance `mask=labels != ignore_label`; it
decides how much easy background is included, so compare values of the same mask only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

THRESHOLDS = 101  # 0 to 100 in steps of 1


def error_auroc(uncertainty: np.ndarray, errors: np.ndarray, *, mask: np.ndarray | None = None) -> float:
    """Probability that a wrong voxel is more uncertain than a right one; in [0, 1], larger is better, 0.5 is chance.

    Args:
        uncertainty: (*spatial), of any scale.
        errors: (*spatial), boolean: prediction != labels.
        mask: (*spatial), boolean, the voxels that count; all by default.

    Returns:
        The probability; NaN if there are no errors, or only errors.

    Raises:
        TypeError: if the errors or the mask are not boolean.
        ValueError: if the shapes differ or an uncertainty that counts is not finite.
    """
    values, wrong = _counted(uncertainty, mask, errors=errors)
    if wrong.all() or not wrong.any():  # all() of nothing is true
        return float("nan")
    from sklearn.metrics import roc_auc_score  # imported here, because it takes seconds

    return float(roc_auc_score(wrong, values))


def error_average_precision(uncertainty: np.ndarray, errors: np.ndarray, *, mask: np.ndarray | None = None) -> float:
    """Mean precision over all recalls of errors, in [0, 1]; larger is better, the share of errors is chance.

    Σ_k (R_k - R_(k-1)) P_k over the thresholds k, without interpolation. With few errors among many voxels it
    distinguishes maps whose AUROC are all close to 1.

    Arguments, errors and NaN are those of `error_auroc`.
    """
    values, wrong = _counted(uncertainty, mask, errors=errors)
    if wrong.all() or not wrong.any():
        return float("nan")
    from sklearn.metrics import average_precision_score  # imported here, because it takes seconds

    return float(average_precision_score(wrong, values))


class FilteringCurves(NamedTuple):
    """Dice, FTP and FTN of `qu_brats_score` at each threshold, ascending; at the last one nothing is filtered.

    Each is an array (thresholds); all are NaN if no voxel counts.
    """

    dice: np.ndarray
    filtered_positives: np.ndarray
    filtered_negatives: np.ndarray

    @property
    def score(self) -> float:
        """The QU-BraTS score, see `qu_brats_score`."""
        return (_area(self.dice) + 1 - _area(self.filtered_positives) + 1 - _area(self.filtered_negatives)) / 3

    @property
    def gain(self) -> float:
        """What the map adds to the score of an all-zero map, see `qu_brats_gain`."""
        filtered = _area(self.filtered_positives) + _area(self.filtered_negatives)
        return (_area(self.dice - self.dice[-1]) - filtered) / 3


class FilteredMap:
    """An uncertainty map whose voxels are assigned to the thresholds once, for any number of structures."""

    def __init__(
        self, uncertainty: np.ndarray, *, mask: np.ndarray | None = None, thresholds: int = THRESHOLDS
    ) -> None:
        """Assigns every voxel that counts to the lowest threshold that keeps it.

        Arguments and errors are those of `qu_brats_score`.
        """
        if thresholds < 2:
            raise ValueError(f"There must be at least 2 thresholds, which are 0 and 1; found {thresholds}.")
        [values] = _counted(uncertainty, mask)
        if values.size and (values.min() < 0 or values.max() > 1):
            raise ValueError(
                f"The uncertainty must be in [0, 1]; found {values.min()} to {values.max()}. Divide it by the "
                f"largest possible value: an entropy by ln C, percentages by 100."
            )
        first_kept = np.searchsorted(np.arange(thresholds) / (thresholds - 1), values)
        self._shape, self._mask, self._thresholds = uncertainty.shape, mask, thresholds
        self._voxels = np.bincount(first_kept, minlength=thresholds)  # (thresholds)
        self._first_kept = first_kept.astype(np.min_scalar_type(thresholds))  # (n), held for all structures

    def curves(self, prediction: np.ndarray, truth: np.ndarray) -> FilteringCurves:
        """What is left of a structure at each threshold.

        Args:
            prediction: (*spatial), boolean.
            truth: (*spatial), boolean.

        Raises:
            TypeError: if a mask is not boolean.
            ValueError: if the shapes differ.
        """
        _require_masks(self._shape, prediction=prediction, truth=truth)
        predicted, true = _where_set(self._mask, prediction, truth)
        if not predicted.size:
            return FilteringCurves(*np.full((3, self._thresholds), np.nan))
        here = predicted | true  # a structure is small: the true negatives are all the others
        outcome = 2 * predicted[here] + true[here]  # FN 1, FP 2, TP 3
        found = np.bincount(outcome * self._thresholds + self._first_kept[here], minlength=4 * self._thresholds)
        found = found.reshape(4, self._thresholds)
        found[0] = self._voxels - found.sum(axis=0)
        true_negatives, false_negatives, false_positives, true_positives = found.cumsum(axis=1)  # kept voxels
        sizes = 2 * true_positives + false_positives + false_negatives
        dice = np.divide(2 * true_positives, sizes, out=np.ones(self._thresholds), where=sizes > 0)
        return FilteringCurves(dice, _filtered(true_positives), _filtered(true_negatives))


def qu_brats_score(
    uncertainty: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    thresholds: int = THRESHOLDS,
) -> float:
    """The score of the BraTS 2020 task on uncertainty, in [0, 1]; larger is better.

    (AUC_Dice + (1 - AUC_FTP) + (1 - AUC_FTN)) / 3 (QU-BraTS: Mehta et al. 2022, arXiv 2112.10074). At a threshold,
    voxels with a larger uncertainty are filtered out. Dice is that of the rest, 1 where nothing is left of either
    mask. FTP is the share of the true positives that was filtered out, FTN that of the true negatives; 0 where there
    were none. AUC is the trapezoidal area over the thresholds from 0 to 100% of the scale. The score rewards
    uncertainty at errors and penalises it where the segmentation is right.

    It is a score of one structure: call it for each class or region.

    Args:
        uncertainty: (*spatial), in [0, 1], as this package writes maps; divide those of the challenge by 100.
        prediction: (*spatial), boolean.
        truth: (*spatial), boolean.
        mask: (*spatial), boolean, the voxels that count; all by default. The challenge uses the brain.
        thresholds: number of thresholds, evenly spaced from 0 to 1. The challenge's program has 41 by default.

    Returns:
        NaN if no voxel counts.

    Raises:
        TypeError: if prediction, truth or mask are not boolean.
        ValueError: if the shapes differ, an uncertainty that counts is NaN or outside [0, 1], or there are fewer
            than two thresholds.
    """
    return filtering_curves(uncertainty, prediction, truth, mask=mask, thresholds=thresholds).score


def qu_brats_gain(
    uncertainty: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    thresholds: int = THRESHOLDS,
) -> float:
    """What a map adds to the QU-BraTS score of an all-zero map, (Dice + 2)/3; in [-1, 1/3], larger is better.

    The score alone is mostly Dice: a good segmentation with no map at all is close to 1.

    Arguments, errors and NaN are those of `qu_brats_score`. Dice of two empty masks is 1 here.
    """
    return filtering_curves(uncertainty, prediction, truth, mask=mask, thresholds=thresholds).gain


def filtering_curves(
    uncertainty: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    thresholds: int = THRESHOLDS,
) -> FilteringCurves:
    """Dice, FTP and FTN of `qu_brats_score` at each threshold; arguments and errors are the same.

    For several structures of one map use `FilteredMap`, which assigns its voxels to the thresholds once.
    """
    return FilteredMap(uncertainty, mask=mask, thresholds=thresholds).curves(prediction, truth)


def _filtered(kept: np.ndarray) -> np.ndarray:
    return 1 - kept / kept[-1] if kept[-1] else np.zeros(len(kept))


def _area(curve: np.ndarray) -> float:
    return float((curve[1:] + curve[:-1]).mean() / 2)


def _counted(uncertainty: np.ndarray, mask: np.ndarray | None, **masks: np.ndarray) -> list[np.ndarray]:
    """(n) each: the uncertainty and the masks where the mask is set; checked."""
    _require_masks(uncertainty.shape, **masks, **({} if mask is None else {"mask": mask}))
    counted = _where_set(mask, uncertainty, *masks.values())
    if not np.isfinite(counted[0]).all():
        raise ValueError("The uncertainty must be finite where it counts; found NaN or infinity.")
    return counted


def _require_masks(shape: tuple[int, ...], **masks: np.ndarray) -> None:
    for name, array in masks.items():
        if array.dtype != bool:
            raise TypeError(
                f"The {name} must be boolean; found {array.dtype}. Compare label maps with a label first."
            )
        if array.shape != shape:
            raise ValueError(f"The {name} must have the shape of the uncertainty, {shape}; found {array.shape}.")


def _where_set(mask: np.ndarray | None, *arrays: np.ndarray) -> list[np.ndarray]:
    """(n) each: the values where the mask is set, or all of them."""
    return [array.ravel() if mask is None else array[mask] for array in arrays]
