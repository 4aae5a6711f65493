"""Surfaces of a prediction and the truth: how far apart they are, and how much of them agrees."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, isfinite

import numpy as np

from nnunet_ext.boxes import bounding_box


def hausdorff_mm(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], *, percentile: float | None = 95
) -> float:
    """Symmetric Hausdorff distance of two masks in mm, or a percentile of it (HD95); smaller is better.

    MONAI finds the surfaces and their distances. The definition:

    - A surface voxel is a voxel of the mask with a neighbour outside the mask across a face (2D: an edge). What lies
      outside the image is outside the mask, so a mask that reaches the border has a surface there, and all voxels of
      a mask of one slice in 3D are surface.
    - Each surface voxel of one mask has the Euclidean distance, between the centres of voxels, to the nearest surface
      voxel of the other mask.
    - The percentile, interpolated linearly, is taken in each direction separately; the larger of the two is the
      result. Tools that pool both directions first give another number.

    Args:
        prediction: boolean, (H, W) or (D, H, W).
        truth: boolean, the same shape.
        spacing_mm: voxel spacing along each axis of the arrays in mm.
        percentile: above 0, up to 100; None is the maximum.

    Returns:
        The distance, in single precision. 0 if both masks are empty. If one is, the diagonal of the image, from
        corner to corner including the outer voxels: a missed structure costs more than any distance could.

    Raises:
        TypeError: if a mask is not boolean.
        ValueError: if the shapes differ or are not 2D or 3D, a spacing is not a positive number for each axis, or
            the percentile is out of range.
    """
    return hausdorff_distances_mm(prediction, truth, spacing_mm, percentiles=(percentile,))[0]


def hausdorff_distances_mm(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    *,
    percentiles: Sequence[float | None] = (None, 95),
) -> tuple[float, ...]:
    """Several percentiles of the Hausdorff distance, by default HD and HD95, computed together.

    Definition, arguments, empty masks and errors are those of `hausdorff_mm`. Most of the time is spent on the
    search for the nearest voxels, which all percentiles share.

    Returns:
        One distance in mm for each percentile, in their order.
    """
    require_masks(prediction, truth)
    spacing = require_spacing(spacing_mm, prediction.ndim)
    shares = [100.0 if percentile is None else float(percentile) for percentile in percentiles]
    for share in shares:
        if not 0 < share <= 100:
            raise ValueError(f"The percentile must be above 0 and at most 100; found {share}. None is the maximum.")
    box = bounding_box(prediction | truth)
    if box is None:
        return (0.0,) * len(shares)
    if not prediction.any() or not truth.any():
        diagonal = hypot(*(size * step for size, step in zip(prediction.shape, spacing, strict=True)))
        return (diagonal,) * len(shares)
    directions = surface_distances_mm(prediction[box], truth[box], spacing)
    return tuple(max(float(np.percentile(distances, share)) for distances in directions) for share in shares)


def surface_distances_mm(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each surface voxel of one mask to the nearest one of the other; see `hausdorff_mm`.

    Args:
        prediction: boolean, (H, W) or (D, H, W), not empty.
        truth: the same.
        spacing_mm: voxel spacing along each axis in mm.

    Returns:
        Distances from the prediction's surface (P) and from the truth's (T) in mm, float32.
    """
    from monai.metrics import get_mask_edges, get_surface_distance  # imported here, because it takes seconds

    # not cropped by MONAI: the callers have done so, and what is outside the array is outside the mask here, too
    edges, true_edges = get_mask_edges(np.ascontiguousarray(prediction), np.ascontiguousarray(truth), crop=False)
    spacing = list(spacing_mm)
    there, back = (
        get_surface_distance(start, end, spacing=spacing) for start, end in ((edges, true_edges), (true_edges, edges))
    )
    return np.asarray(there), np.asarray(back)


def normalised_surface_dice(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], *, tolerance_mm: float
) -> float:
    """NSD: share of both surfaces that lies within a tolerance of the other one, in [0, 1]; larger is better.

    (Nikolov et al. 2021, arXiv 1809.04430.) The same as MONAI's `compute_surface_dice` with `use_subvoxels=True`,
    whose surface elements follow DeepMind's `surface-distance`:

    - An element sits between 2 × 2 × 2 voxels (2D: 2 × 2 pixels) of which some are in the mask and some are not. Its
      size is the area in mm² of the surface that marching cubes put there (2D: the length of the contour in mm).
    - What lies outside the image is outside the mask, so a mask that reaches the border has a surface there.
    - Each element of one mask has the Euclidean distance between centres to the nearest element of the other mask.
      It agrees if that is at most the tolerance.
    - The result is the size of the elements that agree, of both masks, divided by that of all elements of both masks.

    Both surfaces count, so a spurious structure far away costs as much as a missed one of the same surface.

    Args:
        prediction: boolean, (H, W) or (D, H, W). Pass a 2D image as (H, W): as one slice of a volume its faces above
            and below would be surface that agrees wherever the masks overlap.
        truth: boolean, the same shape.
        spacing_mm: voxel spacing along each axis of the arrays in mm.
        tolerance_mm: at least 0, such as the distance by which two experts differ.

    Returns:
        The share; 1 if both masks are empty, 0 if one is.

    Raises:
        TypeError: if a mask is not boolean.
        ValueError: if the shapes differ or are not 2D or 3D, a spacing is not a positive number for each axis, or
            the tolerance is negative or not finite.
    """
    require_masks(prediction, truth)
    spacing = require_spacing(spacing_mm, prediction.ndim)
    if not (isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise ValueError(f"The tolerance must be a number of mm, at least 0; found {tolerance_mm}.")
    if not prediction.any() and not truth.any():
        return 1.0
    if not prediction.any() or not truth.any():
        return 0.0
    points, sizes = surface_elements(prediction, spacing)
    true_points, true_sizes = surface_elements(truth, spacing)
    agreeing = sizes[_within(points, true_points, tolerance_mm)].sum()
    agreeing += true_sizes[_within(true_points, points, tolerance_mm)].sum()
    return float(agreeing / (sizes.sum() + true_sizes.sum()))


def surface_elements(mask: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The elements of a mask's surface, see `normalised_surface_dice`.

    MONAI defines how the voxels around an element are numbered and what size each pattern has. Its own
    `compute_surface_dice` finds the patterns by a convolution in single precision, which takes 11 GB for a CT of
    300 × 512 × 512 voxels in which a lone false voxel is far from the organ.

    Args:
        mask: boolean, (H, W) or (D, H, W).
        spacing_mm: voxel spacing along each axis in mm.

    Returns:
        No elements, N = 0, if the mask is empty.
        points: (N, axes) float64, centres in mm; the origin is the same for all masks of a shape.
        sizes: (N) float64, in mm² (2D: mm).
    """
    from monai.metrics.utils import get_code_to_measure_table  # imported here, because it takes seconds

    table, kernel = get_code_to_measure_table(list(spacing_mm))
    bits = kernel[0, 0].numpy().astype(np.uint8)
    box = bounding_box(mask) or (slice(0, 0),) * mask.ndim
    voxels = np.pad(mask[box], 1).view(np.uint8)  # an element has voxels on both sides, even at the image's border
    codes = np.zeros([size - 1 for size in voxels.shape], dtype=np.uint8)
    for corner in np.ndindex(bits.shape):
        shifted = tuple(slice(start, start + size) for start, size in zip(corner, codes.shape, strict=True))
        codes |= voxels[shifted] * bits[corner]
    mixed = (codes != 0) & (codes != bits.sum())
    start = [side.start for side in box]
    return (np.argwhere(mixed) + start) * np.asarray(spacing_mm), table.numpy().astype(np.float64)[codes[mixed]]


def _within(points: np.ndarray, others: np.ndarray, tolerance_mm: float) -> np.ndarray:
    """(N), boolean: whether a point is at most the tolerance from the nearest of the others."""
    from scipy.spatial import KDTree

    tolerance = np.float32(tolerance_mm)
    # more distant ones are returned as infinite, which is faster
    distances, _ = KDTree(others, leafsize=32).query(points, distance_upper_bound=1.01 * float(tolerance) + 0.01)
    # compared with single precision, so that 3 voxels of 0.7 mm are within 2.1 mm
    return distances.astype(np.float32) <= tolerance


def require_masks(prediction: np.ndarray, truth: np.ndarray) -> None:
    """Raises unless both are boolean masks of the same 2D or 3D shape."""
    if prediction.dtype != bool or truth.dtype != bool:
        raise TypeError(
            f"Both masks must be boolean; found {prediction.dtype} and {truth.dtype}. Compare with a label first: "
            f"prediction == label."
        )
    if prediction.shape != truth.shape:
        raise ValueError(f"Both masks must have the same shape; found {prediction.shape} and {truth.shape}.")
    if prediction.ndim not in (2, 3):
        raise ValueError(f"Masks must be (H, W) or (D, H, W); found the shape {prediction.shape}.")


def require_spacing(spacing_mm: Sequence[float], dimensions: int) -> tuple[float, ...]:
    """The spacing as floats, which MONAI requires.

    Raises:
        ValueError: unless it is a positive number for each axis.
    """
    spacing = tuple(float(step) for step in spacing_mm)
    if len(spacing) != dimensions or not all(isfinite(step) and step > 0 for step in spacing):
        raise ValueError(
            f"The spacing must be a positive number of mm for each of the {dimensions} axes; found {spacing}."
        )
    return spacing
