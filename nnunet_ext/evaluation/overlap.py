"""Overlap of a prediction with the truth. Larger is better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Dice coefficient 2TP/(2TP + FP + FN) of two masks, in [0, 1].

    Args:
        prediction: boolean, any shape.
        truth: boolean, the same shape.

    Returns:
        The coefficient; NaN if both are empty, as in nnU-Net; 0 if one is.

    Raises:
        ValueError: if the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"Both masks must have the same shape; found {prediction.shape} and {truth.shape}.")
    size = int(prediction.sum()) + int(truth.sum())
    return 2 * int((prediction & truth).sum()) / size if size else float("nan")


def mean_dice(prediction: np.ndarray, truth: np.ndarray, labels: Sequence[int]) -> float:
    """Mean Dice over the labels that prediction or truth contain; NaN if neither contains any."""
    values = [dice(prediction == label, truth == label) for label in labels]
    present = [value for value in values if not np.isnan(value)]
    return float(np.mean(present)) if present else float("nan")
