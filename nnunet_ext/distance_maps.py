"""Euclidean distance maps of masks, in units of the smallest spacing. SciPy computes them; nothing is cached."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt


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
    if not mask.any() or mask.all():
        return np.zeros(mask.shape, dtype=np.float32)
    sampling = relative(spacing_mm)
    distance = distance_transform_edt(~mask, sampling=sampling)
    box = grown_box(mask)
    inside = distance_transform_edt(mask[box], sampling=sampling)
    distance[box] -= np.where(mask[box], inside - 1, 0)
    return distance.astype(np.float32)


def distance_to_boundary(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Distance to the nearest voxel on the other side of the mask's boundary, divided by the smallest spacing.

    Args:
        mask: boolean, any number of axes.
        spacing_mm: along each of them.

    Returns:
        fp32; 0 everywhere if the mask is empty or has every voxel.
    """
    if not mask.any() or mask.all():
        return np.zeros(mask.shape, dtype=np.float32)
    sampling = relative(spacing_mm)
    distance = distance_transform_edt(~mask, sampling=sampling)
    box = grown_box(mask)
    distance[box] += distance_transform_edt(mask[box], sampling=sampling)
    return distance.astype(np.float32)


def relative(spacing_mm: Sequence[float]) -> tuple[float, ...]:
    """Spacings divided by the smallest."""
    smallest = min(spacing_mm)
    return tuple(spacing / smallest for spacing in spacing_mm)


def grown_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The box around a mask that is not empty, and one voxel more on each side: what is nearest to a voxel inside."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        found = np.flatnonzero(mask.any(axis=others))
        box.append(slice(max(int(found[0]) - 1, 0), int(found[-1]) + 2))
    return tuple(box)
