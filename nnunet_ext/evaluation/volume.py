"""How much larger or smaller a prediction is than the truth. Closer to 0 is better; the sign says which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import isfinite

import numpy as np

from nnunet_ext.evaluation.surface import require_masks

FLAT_IMAGE_FACTOR = 999


def voxel_volume_ml(spacing_mm: Sequence[float]) -> float:
    """Volume of a voxel; a 2D image, to which nnU-Net gives 999 times its spacing as thickness, is 1 mm thick."""
    thickness_mm, *in_plane_mm = spacing_mm
    is_flat = thickness_mm >= FLAT_IMAGE_FACTOR * max(in_plane_mm)
    return (1.0 if is_flat else thickness_mm) * math.prod(in_plane_mm) / 1000


def volume_error_ml(prediction: np.ndarray, truth: np.ndarray, voxel_ml: float) -> float:
    """Volume of the prediction minus that of the truth, in ml; 0 is best.

    Above 0 the prediction is too large. The position of the masks does not matter: a structure in the wrong place can
    have an error of 0. Over many cases positive and negative errors cancel out in the mean, which is the bias; take
    absolute values for the typical error.

    Args:
        prediction: boolean, (H, W) or (D, H, W).
        truth: boolean, the same shape.
        voxel_ml: volume of a voxel in ml, the product of its spacing in mm divided by 1000.

    Returns:
        The error. 0 if both masks are empty. If one is, the volume of the other, negative for the truth's.

    Raises:
        TypeError: if a mask is not boolean.
        ValueError: if the shapes differ or are not 2D or 3D, or the volume of a voxel is not a positive number.
    """
    if not (isfinite(voxel_ml) and voxel_ml > 0):
        raise ValueError(f"The volume of a voxel must be a positive number of ml; found {voxel_ml}.")
    require_masks(prediction, truth)
    return (int(prediction.sum()) - int(truth.sum())) * voxel_ml


def relative_volume_error(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Volume error as a share of the truth's volume, (prediction - truth)/truth; 0 is best.

    Args:
        prediction: boolean, (H, W) or (D, H, W).
        truth: boolean, the same shape.

    Returns:
        At least -1, for an empty prediction; 1 for twice the volume. NaN if the truth is empty, whatever the
        prediction is.

    Raises:
        TypeError: if a mask is not boolean.
        ValueError: if the shapes differ or are not 2D or 3D.
    """
    require_masks(prediction, truth)
    true = int(truth.sum())
    return (int(prediction.sum()) - true) / true if true else float("nan")
