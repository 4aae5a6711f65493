"""How far probabilities are from observed frequencies.

The expected (ECE), the class-wise and the average calibration error (ACE) are in [0, 1]; smaller is better, 0 is
best. All of them are NaN where no voxel counts. All voxels have the same weight; a mask says which ones count, for
instance `mask=labels != ignore_label`. The paper's values are over the bounding box of the true foreground, one
volume at a time: `box = foreground_box(labels)`, then
`expected_calibration_error(probabilities[(slice(None), *box)], labels[box])`, and the mean over the volumes that have
such a box.

A region with the probability p is a two-class problem with the probabilities 1 - p and p; the value for regions is
the mean over them.
"""

from __future__ import annotations

import numpy as np

from nnunet_ext.evaluation.reliability import (
    ReliabilityBins,
    class_reliability_bins,
    region_reliability_bins,
    reliability_bins,
)


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 100, mask: np.ndarray | None = None
) -> float:
    """Mean gap between the top class's probability and how often it is right, in [0, 1]; smaller is better.

    ECE = Σ_b (n_b / N) |accuracy_b - confidence_b| (Guo et al. 2017, arXiv 1706.04599, Eq. 3). Of two classes that
    are equally likely the first is taken, as in nnU-Net.

    Args:
        probabilities: (C, *spatial), over classes, background included. That they add up to 1 is not checked.
        labels: (*spatial), 0 to C - 1 where the mask is set.
        bins: of equal width over [0, 1].
        mask: (*spatial), boolean, the voxels that count; all by default.

    Returns:
        NaN if no voxel counts.

    Raises:
        TypeError: if the mask is not boolean.
        ValueError: if the shapes do not match, there are no bins, a probability is NaN or outside [0, 1],
            or a label that counts is not a class.
    """
    return reliability_bins(probabilities, labels, bins=bins, mask=mask).expected_error()


def class_wise_ece(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 100, mask: np.ndarray | None = None
) -> float:
    """Mean over all classes of the calibration error of their own probability, in [0, 1]; smaller is better.

    Bins are those of p_c, and accuracy is how often the class is c (Kull et al. 2019, arXiv 1910.12656). The
    background, and classes that the volume does not contain, count like the others; their errors are small.

    Arguments, errors and the empty case are those of `expected_calibration_error`.
    """
    return _mean_over(class_reliability_bins(probabilities, labels, bins=bins, mask=mask), "expected_error")


def average_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 20, mask: np.ndarray | None = None
) -> float:
    """The class-wise error with equal weight for all bins that are not empty, in [0, 1]; smaller is better.

    ACE = mean over the classes of the mean over their bins (Barfoot et al. 2024, arXiv 2403.06759). Few voxels have
    probabilities well between 0 and 1, and the ECE hardly reflects them; here they weigh as much as the rest. It is
    not the *adaptive* calibration error of the same abbreviation, whose bins hold the same number of voxels.

    Arguments, errors and the empty case are those of `expected_calibration_error`.
    """
    return _mean_over(class_reliability_bins(probabilities, labels, bins=bins, mask=mask), "average_error")


def region_expected_calibration_error(
    probabilities: np.ndarray, truth: np.ndarray, *, bins: int = 100, mask: np.ndarray | None = None
) -> float:
    """Mean over the regions of the ECE of "inside or not", in [0, 1]; smaller is better.

    Args:
        probabilities: (R, *spatial), one per region.
        truth: (R, *spatial), boolean: the voxels of each region.
        bins: of equal width over [0, 1]; confidence starts at 0.5, so only the upper half is used.
        mask: (*spatial), boolean, the voxels that count; all by default.

    Returns:
        NaN if no voxel counts.

    Raises:
        TypeError: if the truth or the mask is not boolean.
        ValueError: if the shapes do not match, there are no bins, or a probability is NaN or outside
            [0, 1].
    """
    return _mean_over(region_reliability_bins(probabilities, truth, bins=bins, mask=mask), "expected_error")


def _mean_over(diagrams: list[ReliabilityBins], error: str) -> float:
    return float(np.mean([getattr(diagram, error)() for diagram in diagrams]))
