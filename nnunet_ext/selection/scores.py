"""How uncertain the members are in a unit: the mean of the most uncertain share of its voxels."""

from __future__ import annotations

import math

import numpy as np

from nnunet_ext.selection.units import Box, Unit, inside


def mean_of_top(values: np.ndarray, share: float) -> float:
    """The mean of the largest share of some values, at least of one of them.

    Args:
        values: any shape, not empty.
        share: above 0, at most 1; the number of values is rounded up.
    """
    return mean_of_largest(values.ravel(), count_of(values.size, share))


def label_scores(values: np.ndarray, labels: np.ndarray, share: float) -> dict[int, float]:
    """The same for each foreground label, with 0 in place of the values at other labels.

    So the number of voxels is that of the whole unit, and a label that is predicted in few voxels scores lower.

    Args:
        values: uncertainties.
        labels: of the same shape.
        share: see `mean_of_top`.

    Returns:
        Label to score, of the labels that occur.
    """
    count = count_of(values.size, share)
    foreground = labels > 0
    found, its_values = labels[foreground], values[foreground]
    return {int(label): mean_of_largest(its_values[found == label], count) for label in np.unique(found)}


def count_of(size: int, share: float) -> int:
    """How many values a share is; a product that is whole but for rounding stays that number."""
    return max(math.ceil(round(share * size, 6)), 1)


def mean_of_largest(values: np.ndarray, count: int) -> float:
    """The mean of the largest values; where there are fewer, of these and of zeros."""
    if values.size > count:
        values = np.partition(values, values.size - count)[values.size - count :]
    return float(values.sum(dtype=np.float64) / count)


def scored(case: str, box: Box, uncertainty: np.ndarray, segmentation: np.ndarray, share: float) -> Unit:
    """The unit of a box.

    Args:
        case: its name.
        box: the voxels.
        uncertainty: (z, y, x) of the case, at least 0.
        segmentation: (z, y, x), labels.
        share: see `mean_of_top`.
    """
    values, labels = uncertainty[inside(box)], segmentation[inside(box)]
    return Unit(case, box, mean_of_top(values, share), label_scores(values, labels, share))
