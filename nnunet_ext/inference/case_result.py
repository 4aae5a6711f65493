"""The result of one case after its last member, which the stages read and return."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from nnunet_ext.inference.accumulation.agreement import CroppedLabels
from nnunet_ext.inference.accumulation.case_frame import CaseFrame
from nnunet_ext.inference.accumulation.moments import Moments
from nnunet_ext.inference.accumulation.slabs import SlicedVolume, in_one_piece
from nnunet_ext.labels import Region


@dataclass(frozen=True)
class CaseResult:
    """A segmented case. Volumes cover the box of its frame, on the image's axes.

    Attributes:
        frame: where the box lies in the image.
        structures: name of every foreground class or region to its labels.
        moments: running moments of the members' probabilities; without any where `maps` has what needs them.
        members: the members' own segmentations, cropped to their foreground.
        member_segmentations: member name to segmentation (*image), if they are written.
        probabilities: (C, *box), the ensemble's probabilities, in memory or computed slab by slab.
        segmentation: (*box), uint8 or uint16.
        maps: map name to (*box) float32 in [0, 1].
        row: the case's row of `cases.csv`, without its name.
        fold_rows: the rows of each fold's own members, on which a calibration is fitted; empty with one fold.
        covering_mask: (*box) uint8, 1 where foreground may be; None unless the calibration has such a mask.
        covered_outside: value of the covering mask outside the box.
    """

    frame: CaseFrame
    structures: Mapping[str, Region]
    moments: Moments
    members: Sequence[CroppedLabels]
    member_segmentations: dict[str, np.ndarray]
    probabilities: SlicedVolume
    segmentation: np.ndarray
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    row: Mapping[str, object] = field(default_factory=dict)
    fold_rows: Sequence[Mapping[str, object]] = ()
    covering_mask: np.ndarray | None = None
    covered_outside: int = 0

    @property
    def has_regions(self) -> bool:
        """Whether the outputs are overlapping regions instead of classes."""
        return self.moments.regions

    def all_probabilities(self) -> torch.Tensor:
        """The probabilities (C, *box) as one tensor."""
        outputs = self.frame.models[0].labels.num_segmentation_heads
        return in_one_piece(self.probabilities, (outputs, *self.frame.box_shape))


Stage = Callable[[CaseResult], CaseResult]
