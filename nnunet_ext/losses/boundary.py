"""Boundary loss (Kervadec et al., Medical Image Analysis 67, 2021, arXiv 1812.07032)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunet_ext.distance_maps import signed_distance
from nnunet_ext.losses.targets import OutputForm

SIGNED_DISTANCE = "signed distance"


@dataclass(frozen=True)
class BoundaryTerm:
    """Mean over patches, foreground outputs and voxels of phi p, where phi is the signed distance to the truth.

    It is smallest, and negative, where p is 1 inside and 0 outside. A class that a patch lacks has phi = 0: neither
    value nor gradient. phi of ignored voxels does not count.

    Attributes:
        form: of the target.
    """

    form: OutputForm

    def __call__(self, logits: Tensor, target: Tensor, *, epoch: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """See `LossTerm`; `extras[SIGNED_DISTANCE]` is phi, (B, F, *spatial)."""
        found = self.form.foreground(logits, target)
        weighted = extras[SIGNED_DISTANCE] * found.p
        if found.counted is None:
            return weighted.mean()
        return weighted.sum() / (found.counted.sum() * found.p.shape[1]).clamp_min(1)


@dataclass(frozen=True)
class SignedDistanceOfTarget:
    """What a loader computes for the boundary loss: `signed_distance` of every foreground class or region.

    Attributes:
        form: of the target.
        outputs: of the network.
        spacing_mm: along the patch's axes.
    """

    form: OutputForm
    outputs: int
    spacing_mm: tuple[float, ...]

    def __call__(self, target: Tensor) -> Tensor:
        """(F, *spatial), fp32, of one patch's target (channels, *spatial)."""
        masks = self.form.masks(target, self.outputs).numpy()
        return torch.from_numpy(np.stack([signed_distance(mask, self.spacing_mm) for mask in masks]))
