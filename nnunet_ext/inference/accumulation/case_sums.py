"""Everything that is accumulated over the members of one case, at the image's resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_ext.inference.accumulation.agreement import CroppedLabels
from nnunet_ext.inference.accumulation.case_frame import CaseFrame
from nnunet_ext.inference.accumulation.class_weighted import moments_for
from nnunet_ext.inference.accumulation.decisions import class_probabilities, decided_labels, label_map, label_type
from nnunet_ext.inference.accumulation.early_exit import SettledRule, tiles_with
from nnunet_ext.inference.accumulation.linear_resampling import is_linear
from nnunet_ext.inference.accumulation.member_labels import MemberLabels, as_array
from nnunet_ext.inference.accumulation.member_update import faster_update
from nnunet_ext.inference.accumulation.memory_maps import MemoryMaps
from nnunet_ext.inference.accumulation.resampling import outside_logits, outside_probabilities
from nnunet_ext.inference.accumulation.slabs import (
    MappedVolume,
    Slab,
    SlicedVolume,
    WholeVolume,
    assembled,
    for_each_slab,
)
from nnunet_ext.inference.accumulation.transform_variance import TransformVariance
from nnunet_ext.inference.passes import Pass
from nnunet_ext.inference.sliding_window import Tile
from nnunet_ext.options import Average

HALF_A_VOTE = 0.5
SETTLED = "settled"  # the name of a member that did not run


@dataclass(frozen=True)
class SumOptions:
    """What is accumulated over the members of a case.

    Attributes:
        average: whether probabilities or logits are averaged, see `EnsembleOptions`.
        with_variance: also track the variance of the probabilities.
        keep_members: keep every member's own segmentation.
        fast_resampling: resample probabilities instead of logits, see `EnsembleOptions`.
        class_totals: sum of the members' weights for each class or region, by which they are divided; None if a
            member has one weight.
        with_transform_variance: also track the variance between the transforms of each member.
        with_memory: also track the memory of mixtures.
        maps: the uncertainty maps that are written, for sums that compute them while they have the moments.
        compiled: take members into the moments by a compiled function where that is faster, for GPUs.
    """

    average: Average = "probabilities"
    with_variance: bool = False
    keep_members: bool = False
    fast_resampling: bool = False
    class_totals: tuple[float, ...] | None = None
    with_transform_variance: bool = False
    with_memory: bool = False
    maps: tuple[str, ...] = ()
    compiled: bool = False

    def of_fold(self) -> SumOptions:
        """The same for the members of one fold, of which only the row in `cases.csv` is needed."""
        return replace(
            self, with_variance=False, keep_members=False, with_transform_variance=False, with_memory=False, maps=()
        )


class CaseSums:
    """Accumulates the logits of one case member by member, without keeping any member's volume.

    Args:
        frame: the part of the image that the models predict.
        labels: nnU-Net's label manager, for classes or regions.
        options: what is accumulated.
        early_exit: decides where no further member is needed; None runs all members everywhere. Where a member does
            not run, it counts as agreeing with the label that is settled there.

    Attributes:
        moments: running moments of the members' probabilities (C, *box).
        own: the members' own segmentations.
        open_voxels: (*box) bool, where members still run; None means everywhere.
        transform_variance: variance between the transforms of each member; None unless it is tracked.
        memory: maps of the memory of mixtures; None unless it is tracked.
    """

    def __init__(
        self, frame: CaseFrame, labels: LabelManager, options: SumOptions, early_exit: SettledRule | None = None
    ) -> None:
        self.frame = frame
        self.labels = labels
        self.options = options
        self.early_exit = early_exit
        self.moments = moments_for(
            regions=labels.has_regions,
            with_variance=options.with_variance,
            class_weights=options.class_totals is not None,
            update=faster_update(frame.device, regions=labels.has_regions) if options.compiled else None,
        )
        self.own = MemberLabels(frame.embedded if options.keep_members else None)
        self.open_voxels: torch.Tensor | None = None
        self._settled_labels: torch.Tensor | None = None  # (*box), valid only where members no longer run
        self._logit_sums: list[torch.Tensor | None] = [None] * len(frame.models)
        self._weights = [0.0] * len(frame.models)
        self._logit_weights: list[float | torch.Tensor] = [0.0] * len(frame.models)  # per voxel if some are not seen
        self.transform_variance = TransformVariance(frame, labels) if options.with_transform_variance else None
        self.memory = MemoryMaps(frame) if options.with_memory else None

    @property
    def members(self) -> list[CroppedLabels]:
        """The members' segmentations, cropped to their foreground."""
        return self.own.cropped

    @property
    def member_segmentations(self) -> dict[str, np.ndarray]:
        """Member name to segmentation (*image); empty unless they are kept."""
        return self.own.whole

    @property
    def watches_classifiers(self) -> bool:
        """Whether `watch_classifiers` is to be called for mixtures."""
        return self.options.keep_members or self.memory is not None

    def watch_classifiers(self, position: int, step: Pass, classifiers: Sequence[torch.Tensor]) -> None:
        """Keeps what is asked for of a mixture's classifiers before they are combined.

        Args:
            position: index of the member's model.
            step: the pass that produced the logits.
            classifiers: each classifier's logits (C, *spatial) at the model's resolution.
        """
        if self.memory is not None:
            self.memory.add(position, step, classifiers)
        if self.options.keep_members:
            names = step.classifier_names(len(classifiers))  # none if there is one, which is the member itself
            for name, logits in zip(names, classifiers, strict=False):
                probabilities = self._member_probabilities(position, logits)
                self.own.keep_whole(name, label_map(probabilities, self.frame.box_shape, self.labels))

    def add(self, position: int, step: Pass, logits: torch.Tensor, also: Sequence[CaseSums] = ()) -> None:
        """Accumulates one member.

        Args:
            position: index of the member's model.
            step: the pass that produced the logits.
            logits: (C, *spatial) at the model's resolution; may be overwritten.
            also: other sums over the same frame, without early exit, that take the member as well, such as those of
                its fold. Its probabilities are then computed once for all.
        """
        shape = (self.labels.num_segmentation_heads, *self.frame.box_shape)
        seen = self._seen_in_box(position, step, logits)
        weight = self._weight_of(step, seen)
        if self.open_voxels is not None:
            weight = weight * self.open_voxels
        segmentation = torch.empty(self.frame.box_shape, dtype=label_type(self.labels), device=logits.device)
        self.moments.begin_member(shape, weight, device=logits.device)
        for sums in also:
            sums.moments.begin_member(shape, sums._weight_of(step, seen), device=logits.device)

        def accumulate(slab: Slab) -> None:
            segmentation[slab.where] = decided_labels(slab.values, self.labels)
            self.moments.add_slab(slab)
            for sums in also:
                sums.moments.add_slab(slab)

        for_each_slab(self._member_probabilities(position, logits), accumulate)
        if self.open_voxels is not None:
            segmentation = torch.where(self.open_voxels, segmentation, self._settled())
        for sums in (self, *also):
            sums._take(position, step, sums._completed(segmentation, seen), logits)

    def _weight_of(self, step: Pass, seen: torch.Tensor | None) -> float | torch.Tensor:
        """The weight of a pass: one number, or one per voxel if it sees (*box) less than everything.

        With weights of classes or regions, (C), its share of the members' weights for each of them.
        """
        if step.class_weights is None or self.options.class_totals is None:
            return step.weight if seen is None else step.weight * seen
        return torch.tensor(step.class_weights) / torch.tensor(self.options.class_totals)

    def _take(self, position: int, step: Pass, segmentation: torch.Tensor, logits: torch.Tensor) -> None:
        """Keeps what the moments do not: a member's segmentation (*box) and, if logits are averaged, its logits."""
        self.own.add(step.name, segmentation)
        self._weights[position] += step.weight
        if self.options.average == "logits":
            view = step.field_of_view(logits.shape[1:], logits.device)
            weight = step.weight if view is None else step.weight * view
            earlier = self._logit_sums[position]
            weighted = logits * weight
            self._logit_sums[position] = weighted if earlier is None else earlier.add_(weighted)
            self._logit_weights[position] = self._logit_weights[position] + weight

    def _seen_in_box(self, position: int, step: Pass, logits: torch.Tensor) -> torch.Tensor | None:
        """How much the pass's vote counts, (*box) in [0, 1]; None means fully everywhere."""
        view = step.field_of_view(logits.shape[1:], logits.device)
        if view is None:
            return None
        volume = self.frame.in_box(position, view[None], torch.ones(1))  # what a model crops away is background
        return assembled(volume, (1, *self.frame.box_shape))[0].clamp_(0, 1)

    def _completed(self, segmentation: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """A member's segmentation; where it saw too little for half a vote, it counts as agreeing with the mean."""
        if seen is None:
            return segmentation
        return torch.where(
            seen >= HALF_A_VOTE,
            segmentation,
            self._labels_of_mean(),
        )

    def add_settled(self) -> None:
        """Counts a member that need not run at all, because every voxel is settled.

        Raises:
            RuntimeError: if nothing is settled yet.
        """
        self.own.add(SETTLED, self._settled())

    def settle(self, weight_left: float) -> None:
        """Closes the voxels where the remaining members, whose weights sum to `weight_left`, are not needed."""
        settled = self.early_exit.settled(self.moments, weight_left) if self.early_exit is not None else None
        if settled is not None:
            self.open_voxels = ~settled if self.open_voxels is None else self.open_voxels & ~settled
            self._settled_labels = self._labels_of_mean()

    def tiles_needed(self, position: int) -> list[Tile] | None:
        """The tiles that a model still has to predict; None means all of them."""
        if self.open_voxels is None:
            return None
        model = self.frame.models[position]
        reads_neighbours_only = is_linear(model.configuration.resampling_fn_probabilities)
        if not self.frame.is_whole(position) or not reads_neighbours_only:
            return None if self.open_voxels.any() else []
        on_network_axes = self.open_voxels.permute(*model.plans.transpose_forward)
        return tiles_with(on_network_axes, self.frame.prepared[position].tiled)

    def probabilities(self) -> SlicedVolume:
        """The ensemble's probabilities (C, *box), averaged as the options say.

        Raises:
            RuntimeError: if no member was added.
        """
        if self.options.average == "probabilities" or self.moments.members == 1:  # with one member both are the same
            return WholeVolume(self.moments.mean())
        total: torch.Tensor | None = None
        outside = outside_logits(len(self.moments.mean()), regions=self.labels.has_regions)
        for position, logit_sum in enumerate(self._logit_sums):
            if logit_sum is None:
                continue
            # averaged before resampling, as stock nnU-Net does over folds
            share = self._weights[position] / sum(self._weights)
            volume = self.frame.in_box(position, logit_sum / self._logit_weights[position], outside)
            placed = assembled(volume, (len(logit_sum), *self.frame.box_shape)).mul_(share)
            total = placed if total is None else total.add_(placed)
        if total is None:
            raise RuntimeError("An ensemble has at least one member; none was added.")
        return WholeVolume(self.labels.apply_inference_nonlin(total))

    def maps(self) -> dict[str, np.ndarray]:
        """The maps that are complete already; none, they are computed from the moments."""
        return {}

    def segmentation(self, probabilities: SlicedVolume) -> np.ndarray:
        """(*box): the label map of the ensemble's probabilities; with a single member, that member's own."""
        if self.own.only is not None:
            return self.own.only
        return as_array(label_map(probabilities, self.frame.box_shape, self.labels))

    def _labels_of_mean(self) -> torch.Tensor:
        return label_map(WholeVolume(self.moments.mean()), self.frame.box_shape, self.labels)

    def _settled(self) -> torch.Tensor:
        if self._settled_labels is None:
            raise RuntimeError("Nothing is settled yet. Call settle() between the members.")
        return self._settled_labels

    def _member_probabilities(self, position: int, logits: torch.Tensor) -> SlicedVolume:
        """A member's probabilities (C, *box).

        Stock nnU-Net resamples logits and then applies the softmax; fast resampling does it the other way round, so
        that the softmax is computed for fewer voxels.
        """
        regions, nonlinearity = self.labels.has_regions, partial(class_probabilities, labels=self.labels)
        if self.options.fast_resampling:
            outside = outside_probabilities(len(logits), regions=regions)
            return self.frame.in_box(position, nonlinearity(logits), outside)
        volume = self.frame.in_box(position, logits, outside_logits(len(logits), regions=regions))
        return MappedVolume(volume, nonlinearity)
