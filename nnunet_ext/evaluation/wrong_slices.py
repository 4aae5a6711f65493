"""Which slices are segmented wrongly, how much a map says about it, and how many of them it finds.

A map gives each voxel the probability that it is wrong. Sums of it are expected numbers of voxels: of the foreground
of the segmentation, those that are right are true positives and those that are wrong false positives; of its
background, those that are wrong are false negatives. A foreground voxel with the wrong label is a false positive. The
truth itself is such a map, with the values 0 and 1, so the same functions give the true Dice of the whole foreground.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

FALSE_ALARMS = 0.1
SMALL_SLICE = 0.1  # of the case's mean area: about the area of errors that raises the score of an empty slice to 1/2


@dataclass(frozen=True)
class SliceFigures:
    """The slices of one case, along its stack.

    Attributes:
        dice: (D), true Dice of the whole foreground; NaN where neither truth nor segmentation has any.
        scores: map to its scores (D), see `slice_scores`.
    """

    dice: np.ndarray
    scores: dict[str, np.ndarray]


@dataclass(frozen=True)
class SliceDetection:
    """How well a score finds wrong slices.

    Attributes:
        recall: share of the wrong slices with a score above the threshold; NaN without a wrong slice or a right one.
        false_alarms: share of the right slices above it; NaN without a right one.
        threshold: the score above which a slice is flagged.
        wrong: number of wrong slices.
        right: number of right slices.
    """

    recall: float
    false_alarms: float
    threshold: float
    wrong: int
    right: int


def expected_dice(error: np.ndarray, foreground: np.ndarray) -> float:
    """Dice of a segmentation, 2TP/(2TP + FP + FN) of the expected numbers of voxels.

    Args:
        error: (*spatial), probability that a voxel is wrong; boolean for the true Dice.
        foreground: (*spatial), boolean, of the segmentation.

    Returns:
        The Dice; NaN if both terms are 0, as where nothing is segmented and nothing is missing.
    """
    return float(slice_dice(error[None], foreground[None], axis=0)[0])


def slice_dice(error: np.ndarray, foreground: np.ndarray, *, axis: int) -> np.ndarray:
    """(D): `expected_dice` of each slice.

    Args:
        error: (*spatial), probability that a voxel is wrong; boolean for the true Dice.
        foreground: (*spatial), boolean, of the segmentation.
        axis: along which the D slices are stacked.
    """
    segmented, positives, negatives = _sums(error, foreground, axis)
    true_positives = segmented - positives
    size = 2 * true_positives + positives + negatives
    return np.divide(2 * true_positives, size, out=np.full(len(size), np.nan), where=size > 0)


def slice_scores(uncertainty: np.ndarray, foreground: np.ndarray, *, axis: int) -> np.ndarray:
    """(D): how wrong each slice seems, 0 to 1: one minus its expected Dice, damped where little is segmented.

    (FP + FN)/(2TP + FP + FN + c), with c a tenth of the mean area over the slices that have foreground, and 1 voxel
    in an empty segmentation. Without c a slice without foreground would have the score 1 however small the map is.

    Args:
        uncertainty: (*spatial), in [0, 1]; only for an error map a probability.
        foreground: (*spatial), boolean, of the segmentation.
        axis: along which the D slices are stacked.
    """
    segmented, positives, negatives = _sums(uncertainty, foreground, axis)
    occupied = segmented[segmented > 0]
    damping = SMALL_SLICE * float(occupied.mean()) if occupied.size else 1.0
    wrong = positives + negatives
    return wrong / (2 * (segmented - positives) + wrong + damping)


def slice_detection(
    scores: np.ndarray, dice: np.ndarray, *, failure_dice: float = 0.75, false_alarms: float = FALSE_ALARMS
) -> SliceDetection:
    """Recall of wrong slices, where a given share of the right ones is flagged.

    A slice is wrong if its Dice is below `failure_dice`. Those where it is NaN count neither as wrong nor as right.
    The threshold is the smallest score of a right slice that no more than this share of them exceeds, so that slices
    with the same score are flagged together or not at all.

    Args:
        scores: (N), of the slices of all cases.
        dice: (N), true Dice of each.
        failure_dice: see above.
        false_alarms: share of the right slices that may be flagged.

    Raises:
        ValueError: if scores and Dice differ in number, or a score is not finite.
    """
    scores, dice = np.asarray(scores, dtype=np.float64), np.asarray(dice, dtype=np.float64)
    if scores.shape != dice.shape or not np.isfinite(scores).all():
        raise ValueError(
            f"Every slice needs a finite score and a Dice; found {scores.shape} scores and {dice.shape} Dice, "
            f"{int((~np.isfinite(scores)).sum())} scores not finite."
        )
    right = np.sort(scores[dice >= failure_dice])[::-1]  # NaN is on neither side
    wrong = scores[dice < failure_dice]
    if not right.size:
        return SliceDetection(math.nan, math.nan, math.nan, wrong.size, 0)
    threshold = float(right[min(math.floor(false_alarms * right.size + 1e-9), right.size - 1)])
    return measured(scores, dice, threshold, failure_dice=failure_dice)


def measured(scores: np.ndarray, dice: np.ndarray, threshold: float, *, failure_dice: float) -> SliceDetection:
    """The detection of slices with a threshold that is given; arguments as for `slice_detection`."""
    right, wrong = scores[dice >= failure_dice], scores[dice < failure_dice]
    return SliceDetection(
        recall=float((wrong > threshold).mean()) if wrong.size else math.nan,
        false_alarms=float((right > threshold).mean()) if right.size else math.nan,
        threshold=threshold,
        wrong=wrong.size,
        right=right.size,
    )


def slices_found(
    cases: Iterable[SliceFigures], *, failure_dice: float, false_alarms: float = FALSE_ALARMS
) -> dict[str, SliceDetection]:
    """Map to its detection of the wrong slices of all cases together; cases without a map are left out for it."""
    with_maps = [case for case in cases if case.scores]
    names = dict.fromkeys(name for case in with_maps for name in case.scores)
    found = {}
    for name in names:
        those = [case for case in with_maps if name in case.scores]
        found[name] = slice_detection(
            np.concatenate([case.scores[name] for case in those]),
            np.concatenate([case.dice for case in those]),
            failure_dice=failure_dice,
            false_alarms=false_alarms,
        )
    return found


def _sums(error: np.ndarray, foreground: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(D) each: voxels of the segmentation, expected false positives, expected false negatives."""
    if foreground.dtype != bool or error.shape != foreground.shape:
        raise ValueError(
            f"A segmentation's foreground must be boolean and of the map's shape {error.shape}; found "
            f"{foreground.dtype} of {foreground.shape}."
        )
    others = tuple(other for other in range(error.ndim) if other != axis)
    segmented = foreground.sum(axis=others, dtype=np.float64)
    positives = error.sum(axis=others, dtype=np.float64, where=foreground)
    negatives = error.sum(axis=others, dtype=np.float64, where=~foreground)
    return segmented, positives, negatives
