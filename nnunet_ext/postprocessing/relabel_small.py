"""Turns a structure that is too small as a whole into another one, such as enhancing tumour into necrosis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_ext.labels import Region
from nnunet_ext.postprocessing.minimum_size import VOLUMES_MM3, is_at_least
from nnunet_ext.postprocessing.step import SegmentedCase, in_region, relabelled
from nnunet_ext.postprocessing.structures import Anatomy


@dataclass(frozen=True)
class RelabelSmall:
    """A structure whose whole volume in a case is below a limit gets another label.

    Attributes:
        structure: its name.
        labels: the labels that make it up.
        into: label that it gets.
        volume_mm3: the smallest volume that stays.
    """

    structure: str
    labels: Region
    into: int
    volume_mm3: float

    def __call__(self, case: SegmentedCase) -> np.ndarray:
        """The labels, relabelled if the structure is small."""
        inside = in_region(case.labels, self.labels)
        volume = np.array(inside.sum() * case.voxel_volume_mm3)
        if is_at_least(volume, self.volume_mm3):
            return case.labels.copy()
        return relabelled(case.labels, inside, self.into)


def candidates(anatomy: Anatomy) -> list[tuple[RelabelSmall, ...]]:
    """The pairs that were asked for; of regions, each one inside another, whose label it gets."""
    pairs = [(one, one.beneath) for one in anatomy.structures if one.beneath]
    pairs += [(anatomy.named(small), anatomy.named(other).paint) for small, other in anatomy.relabel]
    return [
        tuple(RelabelSmall(one.name, one.labels, into, volume) for volume in VOLUMES_MM3)
        for one, into in dict.fromkeys(pairs)
    ]
