"""What the wrong voxels of a structure are: missed, spurious, or at a boundary that is off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_ext.boxes import bounding_box
from nnunet_ext.evaluation.lesions import components, covered_voxels
from nnunet_ext.evaluation.surface import require_masks


@dataclass(frozen=True)
class ErrorParts:
    """Wrong voxels of one structure. Each belongs to one part, so that the parts add up to FP + FN.

    Attributes:
        missed: voxels of true components that the prediction does not touch at all.
        spurious: voxels of predicted components that do not touch the truth at all.
        boundary: the rest, where prediction and truth meet and differ.
    """

    missed: int
    spurious: int
    boundary: int

    @property
    def total(self) -> int:
        """All wrong voxels, FP + FN."""
        return self.missed + self.spurious + self.boundary


def error_parts(prediction: np.ndarray, truth: np.ndarray) -> ErrorParts:
    """Splits the wrong voxels of a structure into three parts.

    Components are those of `detect_lesions`: corners connect. Two components touch if they have a voxel in common;
    being adjacent is not enough.

    Args:
        prediction: boolean, (H, W) or (D, H, W).
        truth: boolean, the same shape.

    Returns:
        Counts of voxels. All 0 if both masks are empty. If only the prediction is, all of the truth is missed; if
        only the truth is, all of the prediction is spurious.

    Raises:
        TypeError: if a mask is not boolean.
        ValueError: if the shapes differ or are not 2D or 3D.
    """
    require_masks(prediction, truth)
    box = bounding_box(prediction | truth)
    if box is None:
        return ErrorParts(missed=0, spurious=0, boundary=0)
    both = prediction[box] & truth[box]
    missed = _untouched_voxels(truth[box], both)
    spurious = _untouched_voxels(prediction[box], both)
    wrong = int((prediction[box] ^ truth[box]).sum())
    return ErrorParts(missed=missed, spurious=spurious, boundary=wrong - missed - spurious)


def _untouched_voxels(mask: np.ndarray, both: np.ndarray) -> int:
    """Voxels of the components that have none in common with the other mask."""
    touched, sizes = covered_voxels(components(mask), both)
    return int(sizes[touched == 0].sum())
