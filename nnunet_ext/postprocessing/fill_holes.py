"""Fills background that a structure encloses."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_fill_holes, generate_binary_structure

from nnunet_ext.boxes import bounding_box
from nnunet_ext.labels import Region
from nnunet_ext.postprocessing.step import SegmentedCase, in_region, relabelled
from nnunet_ext.postprocessing.structures import Anatomy


@dataclass(frozen=True)
class FillHoles:
    """Background, or the surrounding region, becomes the structure where no path over faces leads outside.

    Other structures in a hole stay: the blood pool in a myocardium is not filled.

    Attributes:
        structure: its name.
        labels: the labels that make it up.
        paint: label of the voxels that are filled.
        beneath: label that may be filled besides background.
        by_slice: whether each slice across the axis of the largest spacing is filled by itself.
    """

    structure: str
    labels: Region
    paint: int
    beneath: int = 0
    by_slice: bool = False

    def __call__(self, case: SegmentedCase) -> np.ndarray:
        """The labels with filled holes."""
        inside = in_region(case.labels, self.labels)
        box = bounding_box(inside)
        if box is None:
            return case.labels.copy()
        flat = {axis for axis, size in enumerate(inside.shape) if size == 1}  # a 2D image has holes
        if self.by_slice:
            flat.add(int(np.argmax(case.spacing_mm)))
        holes = np.zeros_like(inside)
        holes[box] = filled(inside[box], flat) & ~inside[box]
        return relabelled(case.labels, holes & in_region(case.labels, (0, self.beneath)), self.paint)


def filled(mask: np.ndarray, flat: Collection[int]) -> np.ndarray:
    """A mask without its holes: what no path over faces leads out of.

    Args:
        mask: boolean (*spatial).
        flat: axes along which paths do not go, so that each slice across them is filled by itself. On the fewer than
            two axes that may be left, nothing is enclosed.
    """
    if mask.ndim - len(flat) < 2:
        return mask
    steps = generate_binary_structure(mask.ndim, 1)
    for axis in flat:
        steps &= np.arange(3).reshape([-1 if other == axis else 1 for other in range(mask.ndim)]) == 1
    return binary_fill_holes(mask, steps)


def candidates(anatomy: Anatomy) -> list[tuple[FillHoles, ...]]:
    """One family per structure: in the volume, then slice by slice, which fills more."""
    return [
        tuple(FillHoles(one.name, one.labels, one.paint, one.beneath, by_slice) for by_slice in (False, True))
        for one in anatomy.structures
    ]
