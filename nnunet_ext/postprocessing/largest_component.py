"""Keeps the largest component of a structure, or of all foreground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_ext.labels import Region
from nnunet_ext.postprocessing.components import components_of
from nnunet_ext.postprocessing.step import SegmentedCase, in_region, relabelled
from nnunet_ext.postprocessing.structures import Anatomy

FOREGROUND = "foreground"


@dataclass(frozen=True)
class LargestComponent:
    """All other components become what lies beneath. Of several largest ones, all stay, as in nnU-Net.

    Attributes:
        structure: its name.
        labels: the labels that make it up.
        beneath: label of the voxels that are removed.
    """

    structure: str
    labels: Region
    beneath: int = 0

    def __call__(self, case: SegmentedCase) -> np.ndarray:
        """The labels with the largest component only."""
        found = components_of(in_region(case.labels, self.labels))
        sizes = found.sizes
        return relabelled(case.labels, found.mask(sizes < sizes.max(initial=0)), self.beneath)


def candidates(anatomy: Anatomy) -> list[tuple[LargestComponent, ...]]:
    """All foreground, then each structure."""
    everything = tuple(sorted({label for one in anatomy.structures for label in one.labels}))
    single = [LargestComponent(one.name, one.labels, one.beneath) for one in anatomy.structures]
    if not any(set(one.labels) == set(everything) for one in single):
        single = [LargestComponent(FOREGROUND, everything), *single]
    return [(step,) for step in single]
