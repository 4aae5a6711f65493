"""Running moments of members that have a weight for each class or region, as `nnunet_ext weights` fits them.

A member m has the weights v_m,c. Over all members those of a class add up to 1.

Classes: the ensemble's probability is p̄_c = Σ_m v_m,c p_m,c / Z with Z = Σ_c Σ_m v_m,c p_m,c. That is the mean of the
members' weighted probabilities q_m,c = v_m,c p_m,c / s_m, each with the weight s_m / Z of the voxel, where
s_m = Σ_c v_m,c p_m,c. All other moments are those of this mean: expected entropy Σ_m (s_m / Z) H(q_m), mutual
information Σ_m (s_m / Z) KL(q_m ‖ p̄), which is never negative. With v_m,c = 1 / M nothing changes: q_m = p_m.

Regions are independent of one another: p̄_r = Σ_m v_m,r p_m,r, and the expected entropy is
Σ_r Σ_m v_m,r H(p_m,r), never above H(p̄), because the entropy is concave.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nnunet_ext.inference.accumulation.entropy import entropy
from nnunet_ext.inference.accumulation.member_update import Update
from nnunet_ext.inference.accumulation.moments import Moments
from nnunet_ext.inference.accumulation.slabs import Slab, Where


def moments_for(*, regions: bool, with_variance: bool, class_weights: bool, update: Update | None = None) -> Moments:
    """The moments for members with one weight each, or with one per class or region.

    Args:
        regions: whether the outputs are overlapping regions, see `Moments`.
        with_variance: also track the variance.
        class_weights: whether weights are (C) tensors, one value per class or region.
        update: takes a member into the moments where all classes are taken at once, see `Moments`.
    """
    of_classes = RegionWeightedMoments if regions else ClassWeightedMoments
    kind = of_classes if class_weights else Moments
    return kind(regions=regions, with_variance=with_variance, update=update)


class ClassWeightedMoments(Moments):
    """Moments of a softmax ensemble whose members have a weight for each class: `weight` of `add` is (C).

    Over all members the weights of a class must add up to 1.
    """

    def begin_member(
        self, shape: Sequence[int], weight: float | torch.Tensor = 1.0, *, device: torch.device | None = None
    ) -> None:
        """Starts a member, see `Moments.begin_member`.

        Args:
            shape: (C, *spatial) of the whole volume.
            weight: (C), above 0.
            device: where the sums are kept; ignored after the first member.

        Raises:
            ValueError: if there is not one positive weight per class, or the shape differs from the first member's.
        """
        weights = per_channel(weight, shape)
        self._begin(shape, device)
        if self.members == 1:
            self._weight = torch.zeros_like(self.mean()[0])
        self._member_weight = weights.to(self.mean().device, non_blocking=True)

    def add_slab(self, slab: Slab) -> None:
        """See `Moments.add_slab`."""
        weights, total = torch.as_tensor(self._member_weight), torch.as_tensor(self._weight)[slab.where]
        weighted = slab.values.detach().float() * weights
        weight = weighted.sum(0)
        total += weight
        self._update(slab.where, weighted.div_(weight), weight, total)


class RegionWeightedMoments(Moments):
    """Moments of overlapping regions whose members have a weight for each region: `weight` of `add` is (R).

    Over all members the weights of a region must add up to 1. The expected entropy is complete with the last member.
    """

    def begin_member(
        self, shape: Sequence[int], weight: float | torch.Tensor = 1.0, *, device: torch.device | None = None
    ) -> None:
        """See `ClassWeightedMoments.begin_member`; one weight per region."""
        weights = per_channel(weight, shape)
        self._begin(shape, device)
        self._member_weight = weights.to(self.mean().device, non_blocking=True)
        self._weight = self._weight + self._member_weight

    def add_slab(self, slab: Slab) -> None:
        """See `Moments.add_slab`."""
        where, values = slab.where, slab.values.detach().float()
        weights, totals = torch.as_tensor(self._member_weight), torch.as_tensor(self._weight)
        expected_entropy = self.expected_entropy()[where]
        if self.members == 1:
            all_channels = (slice(None), *where)
            self.mean()[all_channels] = values
            expected_entropy.zero_()
        for channel, value in enumerate(values):
            weight, total = weights[channel], totals[channel]  # tensors, because numbers would wait for a GPU
            expected_entropy.addcmul_(entropy(value[None], regions=True), weight)
            if self.members > 1:
                self._move_class((channel, *where), value, weight, weight / total)

    def _weight_at(self, where: Where) -> float | torch.Tensor:
        return self._weight  # the same for all voxels


def per_channel(weight: float | torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Weights (C) in the shape (C, 1, ...) of a volume.

    Raises:
        ValueError: if there is not one per class or region, above 0.
    """
    weights = torch.as_tensor(weight, dtype=torch.float32)
    if tuple(weights.shape) != (shape[0],) or not (weights > 0).all():
        raise ValueError(f"A member needs a weight above 0 for each of {shape[0]} outputs; found {weights.tolist()}.")
    return weights.reshape(-1, *[1] * (len(shape) - 1))
