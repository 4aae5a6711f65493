"""AdvChain: the network should say the same of an image that was changed where it is weakest (Chen et al., 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nnunet_ext.augmentation.adversarial import Bounds, Chain, ascended, changed, of_each_sample, random_chain, undone
from nnunet_ext.losses.added_terms import AddedTerm, finest
from nnunet_ext.losses.case_weighted import CaseWeighting
from nnunet_ext.losses.ramps import ConstantRamp, Ramp
from nnunet_ext.losses.targets import probabilities_of
from nnunet_ext.trainers.losses.loss_term import LossTermPart


class AdvChain(LossTermPart):
    """Adds the consistency with one ascent step to the loss; an iteration has three forward passes instead of one."""

    adversarial_ramp: Ramp = ConstantRamp(1.0)
    adversarial_bounds: Bounds = Bounds()
    contour_weight: float = 0.5

    def loss_terms(self) -> list[AddedTerm]:
        """The terms of other parts and this one."""
        planar = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[1]
        self.consistency = AdversarialConsistency(
            self.finest_logits,
            regions=self.label_manager.has_regions,
            bounds=replace(self.adversarial_bounds, planar=planar),
            contour_weight=self.contour_weight,
        )
        return [*super().loss_terms(), AddedTerm("AdvChain", self.consistency, self.adversarial_ramp, by_case=False)]

    def finest_logits(self, images: Tensor) -> Tensor:
        """What the network says in training, in the precision that nnU-Net trains in."""
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
            return finest(self.network(images)).float()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        images = batch["data"].to(self.device, non_blocking=True)
        self.consistency.images = images
        try:
            return super().train_step({**batch, "data": images})
        finally:
            self.consistency.images = None


class AdversarialConsistency(CaseWeighting):
    """D(f(x), T^-1 f(T x)), where T is a random chain of changes after one step that makes D larger.

    D is the mean squared difference of probabilities plus that of their contours, the differences of neighbours, over
    voxels that T keeps in the image. f(x) is a constant. Without images, as in validation, it is 0. Each image's part
    of these sums counts by the weight of its case.

    Args:
        logits_of: images (B, channels, *spatial) to logits (B, C, *spatial).
        regions: the outputs are regions.
        bounds: of the changes.
        contour_weight: of the second part; the paper's is 0.5.
    """

    def __init__(
        self, logits_of: Callable[[Tensor], Tensor], *, regions: bool, bounds: Bounds, contour_weight: float
    ) -> None:
        super().__init__()
        self.logits_of = logits_of
        self.regions = regions
        self.bounds = bounds
        self.contour_weight = contour_weight
        self.images: Tensor | None = None  # of the batch that is trained on

    def forward(self, logits: Tensor, target: Tensor, *, epoch: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """See `LossTerm`."""
        if self.images is None:
            return logits.new_zeros(())
        clean = probabilities_of(logits, regions=self.regions).detach()
        chain = self.strongest_chain(clean, self.images)
        return self.distance(clean, self.images, chain, self.weights_of(len(clean)))

    def strongest_chain(self, clean: Tensor, images: Tensor) -> Chain:
        """A random chain after one step along the gradient of the distance.

        The step has the same length whatever the distance is multiplied by. The gradient goes back through the
        network without nnU-Net's scaler: in half precision that of a mean over all voxels would be 0.
        """
        start = Chain(*(tensor.requires_grad_() for tensor in random_chain(images, self.bounds).tensors))
        gradients = torch.autograd.grad(clean.numel() * self.distance(clean, images, start), start.tensors)
        found = ascended(start, gradients, self.bounds)
        return Chain(*(tensor.detach() for tensor in found.tensors))

    def distance(self, clean: Tensor, images: Tensor, chain: Chain, weights: Sequence[float] = ()) -> Tensor:
        """D for one chain, each image's part times its weight if there are weights."""
        back = undone(probabilities_of(self.logits_of(changed(images, chain)), regions=self.regions), chain)
        kept = (undone(torch.ones_like(clean[:, :1]), chain) > 1 - 1e-3).float()
        difference = kept * (clean - back)
        if weights:
            difference = difference * of_each_sample(clean.new_tensor(weights).sqrt(), clean)
        mean = difference.square().sum() / (kept.sum() * clean.shape[1]).clamp_min(1)
        contours = [difference.diff(dim=axis).square() * pairs(kept, axis) for axis in range(2, difference.ndim)]
        return mean + self.contour_weight * torch.stack([contour.mean() for contour in contours]).mean()


def pairs(kept: Tensor, axis: int) -> Tensor:
    """Where two neighbours along an axis are kept."""
    length = kept.shape[axis] - 1
    return kept.narrow(axis, 0, length) * kept.narrow(axis, 1, length)
