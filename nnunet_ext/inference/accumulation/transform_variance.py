"""The variance of the probabilities between the test-time transforms of a member, averaged over the members."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_ext.inference.accumulation.case_frame import CaseFrame
from nnunet_ext.inference.accumulation.decisions import class_probabilities
from nnunet_ext.inference.accumulation.maps import as_map, summed_variance
from nnunet_ext.inference.accumulation.moments import Moments
from nnunet_ext.inference.accumulation.slabs import assembled
from nnunet_ext.inference.passes import Pass
from nnunet_ext.inference.transforms.transform import Observer, Transform
from nnunet_ext.models.members import Member


class TransformVariance:
    """Accumulates the map `tta_variance` of one case, transform by transform, at each model's own resolution.

    Only the moments of the member that is running and one value per voxel and model are kept. Transforms of a member
    must follow each other.

    Args:
        frame: the part of the image that the models predict.
        labels: nnU-Net's label manager, for classes or regions.
    """

    def __init__(self, frame: CaseFrame, labels: LabelManager) -> None:
        self.frame = frame
        self.labels = labels
        self._running: tuple[int, Member] | None = None
        self._moments = Moments(regions=labels.has_regions)
        self._member_weight = 0.0
        self._sums: list[torch.Tensor | None] = [None] * len(frame.models)  # (*spatial) of each model
        self._weights = [0.0] * len(frame.models)

    def observer(self, position: int, step: Pass) -> Observer:
        """What receives the transforms of a pass.

        Args:
            position: index of the member's model.
            step: the pass; with `tta_members` a member has several.
        """
        return partial(self._add, position, step)

    def as_map(self) -> np.ndarray:
        """The map (*box) float32 in [0, 1], see `MAP_FACTS`; to be called after the last member."""
        self._end_member()
        total = torch.zeros(self.frame.box_shape)
        for position, values in enumerate(self._sums):
            if values is not None:
                volume = self.frame.in_box(position, values[None] / sum(self._weights), torch.zeros(1))
                total += assembled(volume, (1, *self.frame.box_shape))[0].cpu()
        return as_map(total)

    def _add(self, position: int, step: Pass, transform: Transform, logits: torch.Tensor) -> None:
        if self._running != (position, step.member):
            self._end_member()
            self._running = (position, step.member)
        view = transform.field_of_view(logits.shape[1:], logits.device)
        self._moments.add(class_probabilities(logits, self.labels), 1.0 if view is None else view)
        self._member_weight += step.weight / len(step.transforms)

    def _end_member(self) -> None:
        """Turns the moments of the member that ran last into its variance, and adds that to its model's sum."""
        if self._running is None:
            return
        position, _ = self._running
        weighted = summed_variance(self._moments) * self._member_weight
        earlier = self._sums[position]
        self._sums[position] = weighted if earlier is None else earlier + weighted
        self._weights[position] += self._member_weight
        self._running, self._member_weight = None, 0.0
        self._moments = Moments(regions=self.labels.has_regions)
