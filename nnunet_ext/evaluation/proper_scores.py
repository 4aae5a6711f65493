"""Scores that are minimal for the true probabilities: calibration and sharpness in one number.

- Brier score: [0, 2]
- negative log-likelihood: nats, from 0 to 16.1, limited by the clipping of the probabilities

Smaller is better in both, 0 is best; NaN where no voxel counts. A region with the probability p is a two-class
problem with the probabilities 1 - p and p; the value for regions is the mean over them.
"""

from __future__ import annotations

import numpy as np

from nnunet_ext.evaluation.counted_voxels import class_chunks, region_chunks

SMALLEST_PROBABILITY = 1e-7  # of the negative log-likelihood: one voxel at 0 would make it infinite


def brier_score(probabilities: np.ndarray, labels: np.ndarray, *, mask: np.ndarray | None = None) -> float:
    """Mean over the voxels of Σ_c (p_c - y_c)^2, in [0, 2]; smaller is better (Brier 1950).

    Arguments, errors and the empty case are those of `expected_calibration_error`.
    """
    total, voxels = 0.0, 0
    for values, truth in class_chunks(probabilities, labels, mask):
        voxels += truth.size
        for label, value in enumerate(values):
            total += float(np.square(value.astype(np.float64) - (truth == label)).sum())
    return total / voxels if voxels else float("nan")


def negative_log_likelihood(
    probabilities: np.ndarray, labels: np.ndarray, *, mask: np.ndarray | None = None
) -> float:
    """Mean over the voxels of -ln p of the true class, in nats; smaller is better.

    Probabilities below 1e-7 count as 1e-7, which limits it to 16.1.

    Arguments, errors and the empty case are those of `expected_calibration_error`.
    """
    total, voxels = 0.0, 0
    for values, truth in class_chunks(probabilities, labels, mask):
        voxels += truth.size
        total += _log_loss(np.take_along_axis(values, truth[None].astype(np.intp), axis=0))
    return total / voxels if voxels else float("nan")


def region_brier_score(probabilities: np.ndarray, truth: np.ndarray, *, mask: np.ndarray | None = None) -> float:
    """Mean over regions and voxels of 2 (p - y)^2, in [0, 2]; smaller is better.

    The factor is that of two classes, p and 1 - p, so that the range is that of `brier_score`.

    Arguments, errors and the empty case are those of `region_expected_calibration_error`.
    """
    total, decisions = 0.0, 0
    for values, inside in region_chunks(probabilities, truth, mask):
        decisions += inside.size
        total += 2 * float(np.square(values.astype(np.float64) - inside).sum())
    return total / decisions if decisions else float("nan")


def region_negative_log_likelihood(
    probabilities: np.ndarray, truth: np.ndarray, *, mask: np.ndarray | None = None
) -> float:
    """Mean over regions and voxels of the binary cross-entropy, in nats, clipped as above; smaller is better.

    Arguments, errors and the empty case are those of `region_expected_calibration_error`.
    """
    total, decisions = 0.0, 0
    for values, inside in region_chunks(probabilities, truth, mask):
        decisions += inside.size
        total += _log_loss(np.where(inside, values, 1 - values.astype(np.float64)))
    return total / decisions if decisions else float("nan")


def _log_loss(probability_of_truth: np.ndarray) -> float:
    return float(-np.log(np.clip(probability_of_truth.astype(np.float64), SMALLEST_PROBABILITY, 1)).sum())
