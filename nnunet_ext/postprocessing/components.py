"""Connected components of a mask. Voxels that share a face, an edge or a corner are connected, as in nnU-Net."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label

from nnunet_ext.boxes import bounding_box


@dataclass(frozen=True)
class Components:
    """The components of a mask.

    Attributes:
        shape: of the mask.
        box: the part of it that holds all components.
        numbers: (*box) int, 0 outside and 1 to n in the components.
    """

    shape: tuple[int, ...]
    box: tuple[slice, ...]
    numbers: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """(n): voxels of each component."""
        return np.bincount(self.numbers.ravel(), minlength=1)[1:]

    def touched_by(self, mask: np.ndarray) -> np.ndarray:
        """(n) bool: the components with at least one voxel of a mask (*shape)."""
        touched = np.zeros(len(self.sizes), dtype=bool)
        numbers = np.unique(self.numbers[mask[self.box]])
        touched[numbers[numbers > 0] - 1] = True
        return touched

    def mask(self, chosen: np.ndarray) -> np.ndarray:
        """(*shape) bool: the voxels of the components that are chosen, (n) bool."""
        whole = np.zeros(self.shape, dtype=bool)
        whole[self.box] = np.concatenate([[False], chosen])[self.numbers]
        return whole


def components_of(mask: np.ndarray) -> Components:
    """The components of a boolean mask (*spatial); none if it is empty."""
    box = bounding_box(mask) or tuple(slice(0, 0) for _ in mask.shape)
    numbers, _ = label(mask[box], structure=np.ones((3,) * mask.ndim))
    return Components(mask.shape, box, numbers)
