"""Euclidean distance maps of masks, in units of the smallest spacing. SciPy computes them; nothing is cached."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from nnunet_ext.boxes import bounding_box


def signed_distance(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Kervadec's level set (arXiv 1812.07032, released code): positive outside, not above 0 inside.

    Outside it is the distance d to the mask, inside -(d - 1) with the distance d to what is not the mask. Distances
    are between centres of voxels and divided by the smallest spacing, so that the smallest step between neighbours
    is 1 and a voxel of the mask next to such a neighbour outside has 0.

    Args:
        mask: boolean, any number of axes.
        spacing_mm: along each of them.

    Returns:
        fp32; 0 everywhere if the mask is empty or has every voxel: there is no boundary.
    """
    outside, inside = distances_of_sides(mask, spacing_mm)
    return outside - np.where(inside > 0, inside - 1, 0)


def distance_to_boundary(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Distance to the nearest voxel on the other side of the mask's boundary, divided by the smallest spacing.

    Args:
        mask: boolean, any number of axes.
        spacing_mm: along each of them.

    Returns:
        fp32; 0 everywhere if the mask is empty or has every voxel.
    """
    outside, inside = distances_of_sides(mask, spacing_mm)
    return outside + inside


def distances_of_sides(mask: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the mask, 0 inside, and to what is not the mask, 0 outside, in units of the smallest spacing.

    Args:
        mask: boolean, any number of axes.
        spacing_mm: along each of them.

    Returns:
        Both fp32, of the mask's shape; 0 everywhere if the mask is empty or has every voxel.
    """
    outside, inside = (np.zeros(mask.shape, dtype=np.float32) for _ in range(2))
    box = bounding_box(mask, margin=1)  # holds what is nearest to a voxel inside
    if box is None or mask.all():
        return outside, inside
    sampling = relative(spacing_mm)
    outside[:] = distance_transform_edt(~mask, sampling=sampling)
    inside[box] = distance_transform_edt(mask[box], sampling=sampling)
    return outside, inside


def relative(spacing_mm: Sequence[float]) -> tuple[float, ...]:
    """Spacings divided by the smallest."""
    smallest = min(spacing_mm)
    return tuple(spacing / smallest for spacing in spacing_mm)
