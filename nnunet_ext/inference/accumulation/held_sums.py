"""Sums over the members of a case without any volume of all classes at the image's resolution.

The members' logits are kept as they are, at the networks' resolution, which is often much coarser than the image's.
After the last member all of them are resampled and averaged together, a few slices or rows at a time. Every voxel
goes through the same steps as in `CaseSums`, so the results are the same to the byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np
import torch

from nnunet_ext.inference.accumulation.case_sums import HALF_A_VOTE, CaseSums
from nnunet_ext.inference.accumulation.class_weighted import moments_for
from nnunet_ext.inference.accumulation.decisions import decided_labels, label_type
from nnunet_ext.inference.accumulation.maps import MAPS_OF_THE_ROW, fill_maps
from nnunet_ext.inference.accumulation.member_labels import as_array
from nnunet_ext.inference.accumulation.moments import Moments
from nnunet_ext.inference.accumulation.slabs import Slab, SlicedVolume, Where, for_each_slab
from nnunet_ext.inference.passes import Pass
from nnunet_ext.machine.tensor_room import TensorRoom


@dataclass(frozen=True)
class HeldMember:
    """A member whose logits wait for the end of the case.

    Attributes:
        position: index of its model.
        step: the pass that produced the logits.
        logits: (C, *spatial) at the model's resolution.
        seen: (*box), how much its vote counts, shared by passes with the same view; None means fully everywhere.
    """

    position: int
    step: Pass
    logits: torch.Tensor
    seen: torch.Tensor | None


@dataclass(frozen=True)
class Part:
    """Some voxels after the last member.

    Attributes:
        where: the voxels.
        moments: the moments of all members there.
        members: each member's labels there.
    """

    where: Where
    moments: Moments
    members: Sequence[torch.Tensor]


@dataclass(frozen=True)
class Finished:
    """What is known of a case after its last member: label maps (*box), and map name to (*box) float32."""

    ensemble: np.ndarray
    maps: dict[str, np.ndarray]


class HeldSums(CaseSums):
    """`CaseSums` that keep the members' logits instead of sums.

    Needs members that predict the whole box in the same slabs, averaged probabilities, and no early exit; see
    `memory_plan`. It has no `moments` of the whole box.
    """

    def __init__(self, *arguments: object, **settings: object) -> None:
        super().__init__(*arguments, **settings)  # type: ignore[arg-type]
        self._held: list[HeldMember] = []
        self._views: dict[tuple[int, str | None], torch.Tensor | None] = {}

    def add(self, position: int, step: Pass, logits: torch.Tensor, also: Sequence[CaseSums] = ()) -> None:
        """Keeps one member's logits; arguments as in `CaseSums.add`, and the logits must not change afterwards."""
        member = HeldMember(position, step, logits, self._seen_in_box(position, step, logits))
        for sums in (self, *also):
            if not isinstance(sums, HeldSums):
                raise TypeError(f"Held sums share members with held sums only; found {type(sums).__name__}.")
            sums._held.append(member)

    def _seen_in_box(self, position: int, step: Pass, logits: torch.Tensor) -> torch.Tensor | None:
        """See `CaseSums`; kept once for all passes of a model with the same view, since members do not change it."""
        key = position, step.in_view_of
        if key not in self._views:
            self._views[key] = super()._seen_in_box(position, step, logits)
        return self._views[key]

    def probabilities(self) -> SlicedVolume:
        """The ensemble's probabilities (C, *box), computed again for every slab that is asked for."""
        return MeanOfMembers(self._together())

    def segmentation(self, probabilities: SlicedVolume) -> np.ndarray:
        """See `CaseSums.segmentation`."""
        return self._finished.ensemble

    def maps(self) -> dict[str, np.ndarray]:
        """The maps that were asked for and those that the row needs, (*box) float32 in [0, 1]."""
        return self._finished.maps

    @cached_property
    def _finished(self) -> Finished:
        """Runs over all voxels once and fills in everything that is kept, the members' segmentations as well."""
        shape, labels = self.frame.box_shape, label_type(self.labels)
        segmentations = [torch.empty(shape, dtype=labels) for _ in self._held]
        ensemble = torch.empty(shape, dtype=labels)
        names = dict.fromkeys([*self.options.maps, *MAPS_OF_THE_ROW])
        maps = {name: np.empty(shape, np.float32) for name in names}

        def finish(part: Part) -> None:
            for segmentation, decided in zip(segmentations, part.members, strict=True):
                segmentation[part.where] = decided
            if len(part.members) > 1:
                ensemble[part.where] = decided_labels(part.moments.mean(), self.labels)
            fill_maps(maps, part.where, part.moments)

        for_each_slab(self._together(), finish)
        own = as_array(ensemble if len(segmentations) > 1 else segmentations[0])
        for member in self._held:  # one segmentation at a time is dropped for the box of its foreground
            self.own.add(member.step.name, segmentations.pop(0))
        return Finished(own, maps)

    def _together(self) -> MembersTogether:
        if not self._held:
            raise RuntimeError("An ensemble has at least one member; none was added.")
        return MembersTogether(self, self._held)

    def moments_at(self, slabs: Iterable[Slab], held: Sequence[HeldMember]) -> tuple[Moments, list[torch.Tensor]]:
        """The moments of all members in one slab, and each member's labels there.

        Args:
            slabs: the members' probabilities in the same voxels, one after the other.
            held: the members.
        """
        moments = moments_for(
            regions=self.labels.has_regions,
            with_variance=self.options.with_variance,
            class_weights=self.options.class_totals is not None,
        )
        decided = []
        for member, slab in zip(held, slabs, strict=True):
            where, shape = slab.where, slab.values.shape
            whole = tuple(slice(0, size) for size in shape[1:])
            seen = None if member.seen is None else member.seen[where]
            moments.begin_member(shape, self._weight_of(member.step, seen), device=slab.values.device)
            moments.add_slab(replace(slab, where=whole))
            labels = decided_labels(slab.values, self.labels).cpu()
            if seen is not None:  # as in `CaseSums`: where it saw too little, it agrees with the mean so far
                agreeing = decided_labels(moments.mean(), self.labels).cpu()
                labels = torch.where(seen.cpu() >= HALF_A_VOTE, labels, agreeing)
            decided.append(labels)
        return moments, decided


class MembersTogether:
    """All held members, slab by slab.

    Args:
        sums: whose members they are.
        held: the members; at least one.
    """

    def __init__(self, sums: HeldSums, held: Sequence[HeldMember]) -> None:
        self.sums = sums
        self.held = held
        self.volumes = [sums._member_probabilities(member.position, member.logits) for member in held]
        self.slices = self.volumes[0].slices
        self.device = self.volumes[0].device
        self.rooms: list[TensorRoom] = [prepared.tiled.room for prepared in sums.frame.prepared]

    def slabs(self, part: slice) -> Iterator[Part]:
        """See `Sliced`."""
        first, *others = (iter(volume.slabs(part)) for volume in self.volumes)
        for slab in first:
            # the others' slabs exist one at a time, so that memory does not grow with the members
            moments, decided = self.sums.moments_at(chain([slab], map(next, others)), self.held)
            yield Part(slab.where, moments, decided)
            for room in self.rooms:
                room.release()


class MeanOfMembers:
    """The mean of held members as a volume (C, *box)."""

    def __init__(self, together: MembersTogether) -> None:
        self.together = together
        self.slices = together.slices
        self.device = together.device

    def slabs(self, part: slice) -> Iterator[Slab]:
        """See `Sliced`."""
        for found in self.together.slabs(part):
            yield Slab(found.where, found.moments.mean())
