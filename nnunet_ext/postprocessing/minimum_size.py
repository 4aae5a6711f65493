"""Removes components of a structure that are smaller than a volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_ext.labels import Region
from nnunet_ext.postprocessing.components import components_of
from nnunet_ext.postprocessing.step import SegmentedCase, in_region, relabelled
from nnunet_ext.postprocessing.structures import Anatomy

VOLUMES_MM3 = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0)
ROUNDING = 1e-9  # relative; ten voxels of 0.1 mm³ are 1 mm³


@dataclass(frozen=True)
class MinimumSize:
    """Components below a volume become what lies beneath.

    Attributes:
        structure: its name.
        labels: the labels that make it up.
        beneath: label of the voxels that are removed.
        volume_mm3: the smallest volume that stays.
        keep_largest: whether the largest component stays in any case, so that no structure vanishes.
    """

    structure: str
    labels: Region
    beneath: int
    volume_mm3: float
    keep_largest: bool = True

    def __call__(self, case: SegmentedCase) -> np.ndarray:
        """The labels without small components."""
        found = components_of(in_region(case.labels, self.labels))
        sizes = found.sizes
        stays = is_at_least(sizes * case.voxel_volume_mm3, self.volume_mm3)
        if self.keep_largest:
            stays |= sizes == sizes.max(initial=0)
        return relabelled(case.labels, found.mask(~stays), self.beneath)


def is_at_least(volumes_mm3: np.ndarray, volume_mm3: float) -> np.ndarray:
    """Whether each volume reaches another, up to rounding."""
    return volumes_mm3 >= volume_mm3 * (1 - ROUNDING)


def candidates(anatomy: Anatomy) -> list[tuple[MinimumSize, ...]]:
    """One family per structure: every volume, first with the largest component kept in any case."""
    return [
        tuple(
            MinimumSize(one.name, one.labels, one.beneath, volume, keep_largest)
            for keep_largest in (True, False)
            for volume in VOLUMES_MM3
        )
        for one in anatomy.structures
    ]
