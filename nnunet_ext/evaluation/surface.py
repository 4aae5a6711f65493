"""Distance between the surfaces of a prediction and the truth. Smaller is better."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, isfinite

import numpy as np

from nnunet_ext.evaluation.boxes import bounding_box

MARGIN = 1  # voxels; what is outside the cropped image counts as outside the mask


def hausdorff_mm(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], *, percentile: float | None = 95
) -> float:
    """Symmetric Hausdorff distance of two masks in mm, or a percentile of it (HD95).

    MONAI computes it. Its definition:

    - A surface voxel is a voxel of the mask with a neighbour outside the mask across a face (2D: an edge). What lies
      outside the image is outside the mask, so a mask that reaches the border has a surface there, and all voxels of
      a mask of one slice in 3D are surface.
    - Each surface voxel of one mask has the Euclidean distance, between the centres of voxels, to the nearest surface
      voxel of the other mask.
    - The percentile, interpolated linearly, is taken in each direction by itself; the larger of the two is the
      result. Tools that pool both directions first give another number.

    Args:
        prediction: boolean, (H, W) or (D, H, W).
        truth: boolean, the same shape.
        spacing_mm: of the voxels along each axis of the arrays.
        percentile: above 0, up to 100; None is the maximum.

    Returns:
        At least 0, with single precision. 0 if both masks are empty. If one is, the diagonal of the image, from
        corner to corner with the outer voxels in full: a missed structure costs more than any distance could.

    Raises:
        TypeError: if a mask is not boolean.
        ValueError: if the shapes differ or are not 2D or 3D, a spacing is not a positive number for each axis, or
            the percentile is outside its range.
    """
    require_masks(prediction, truth)
    spacing = require_spacing(spacing_mm, prediction.ndim)
    if percentile is not None and not 0 < percentile <= 100:
        raise ValueError(f"The percentile must be above 0 and at most 100; found {percentile}. None is the maximum.")
    box = bounding_box(prediction | truth, margin=MARGIN)
    if box is None:
        return 0.0
    if not prediction.any() or not truth.any():
        return hypot(*(size * step for size, step in zip(prediction.shape, spacing, strict=True)))
    from monai.metrics import compute_hausdorff_distance  # here, because it takes seconds

    distance = compute_hausdorff_distance(
        np.ascontiguousarray(prediction[box])[None, None],  # (batch, channel, *spatial)
        np.ascontiguousarray(truth[box])[None, None],
        include_background=True,  # the one channel is the structure
        percentile=percentile,
        spacing=spacing,
    )
    return float(distance)


def require_masks(prediction: np.ndarray, truth: np.ndarray) -> None:
    """Raises unless both are boolean masks of the same 2D or 3D shape."""
    if prediction.dtype != bool or truth.dtype != bool:
        raise TypeError(
            f"Surfaces are those of boolean masks; found {prediction.dtype} and {truth.dtype}. Compare with a label "
            f"first: prediction == label."
        )
    if prediction.shape != truth.shape:
        raise ValueError(f"Both masks must have the same shape; found {prediction.shape} and {truth.shape}.")
    if prediction.ndim not in (2, 3):
        raise ValueError(f"Masks must be (H, W) or (D, H, W); found the shape {prediction.shape}.")


def require_spacing(spacing_mm: Sequence[float], dimensions: int) -> tuple[float, ...]:
    """The spacing as floats, which MONAI insists on.

    Raises:
        ValueError: unless it is a positive number for each axis.
    """
    spacing = tuple(float(step) for step in spacing_mm)
    if len(spacing) != dimensions or not all(isfinite(step) and step > 0 for step in spacing):
        raise ValueError(
            f"The spacing must be a positive number of mm for each of the {dimensions} axes; found {spacing}."
        )
    return spacing
