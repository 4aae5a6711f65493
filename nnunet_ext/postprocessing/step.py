"""What a step of post-processing takes and returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nnunet_ext.evaluation.volume import voxel_volume_ml
from nnunet_ext.labels import Region


class PostProcessingError(ValueError):
    """Post-processing that is missing, damaged, or for other labels."""


@dataclass(frozen=True)
class SegmentedCase:
    """A segmentation, and what steps may need besides it.

    Attributes:
        labels: (*spatial), uint8 or uint16.
        spacing_mm: along each axis.
        probabilities: (C, *spatial), classes with background or regions; None if they were not kept.
    """

    labels: np.ndarray
    spacing_mm: Sequence[float]
    probabilities: np.ndarray | None = None

    @property
    def voxel_volume_mm3(self) -> float:
        """The volume of one voxel; a 2D image is 1 mm thick, as in `evaluate`."""
        return 1000 * voxel_volume_ml(self.spacing_mm)

    def required_probabilities(self) -> np.ndarray:
        """The probabilities.

        Raises:
            PostProcessingError: if there are none.
        """
        if self.probabilities is None:
            raise PostProcessingError("This step needs the probabilities of the case, which were not kept.")
        return self.probabilities


class Step(Protocol):
    """One operation with its parameters: a frozen dataclass of plain values, which the JSON file holds.

    Attributes:
        structure: name of what it changes, for reports.
    """

    @property
    def structure(self) -> str:
        """Name of what the step changes."""

    def __call__(self, case: SegmentedCase) -> np.ndarray:
        """The labels after this step, of the same shape and type; the case's own are not modified."""


def in_region(labels: np.ndarray, region: Region) -> np.ndarray:
    """Boolean mask of the voxels that have one of the region's labels."""
    table = np.zeros(1 + max(int(labels.max(initial=0)), *region), dtype=bool)
    table[list(region)] = True
    return table[labels]


def relabelled(labels: np.ndarray, where: np.ndarray, label: int) -> np.ndarray:
    """A copy of the labels with one label at the voxels of a mask."""
    changed = labels.copy()
    changed[where] = label
    return changed
