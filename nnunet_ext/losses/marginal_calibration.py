"""Marginal L1 average calibration error as a loss (Barfoot et al., MICCAI 2024, arXiv 2403.06759)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nnunet_ext.losses.targets import Foreground, OutputForm, mean_of_present

Binning = Literal["hard", "soft"]


@dataclass(frozen=True)
class ACETerm:
    """Mean over structures of the mean over bins that are not empty of |mean confidence - share of the structure|.

    It is 0 for a perfect prediction that is certain. The gradient flows through the confidences, with soft bins
    through the bins, too. A class that a patch lacks has neither value nor gradient.

    Attributes:
        form: of the target.
        bins: of equal width between 0 and 1; a confidence of 1 belongs to the last.
        binning: "hard", or "soft": each voxel is shared between the two bins whose centres are nearest, linearly.
    """

    form: OutputForm
    bins: int = 20
    binning: Binning = "hard"

    def __call__(self, logits: Tensor, target: Tensor, *, epoch: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """See `LossTerm`."""
        found = self.form.foreground(logits, target)
        return mean_of_present(calibration_errors(found, self.bins, self.binning), found.present)


def calibration_errors(found: Foreground, bins: int, binning: Binning) -> Tensor:
    """The average calibration error of each structure of each patch, (B, F); 0 if no voxel counts."""
    p, g = found.p.flatten(start_dim=2), found.g.flatten(start_dim=2)  # (B, F, voxels)
    counted = torch.ones_like(p) if found.counted is None else found.counted.flatten(start_dim=2).expand_as(p)
    voxels, confidence, positive = (p.new_zeros((*p.shape[:2], bins)) for _ in range(3))  # (B, F, bins)
    for index, share in bins_of(p, bins, binning):
        part = share * counted
        voxels = voxels.scatter_add(2, index, part)
        confidence = confidence.scatter_add(2, index, part * p)
        positive = positive.scatter_add(2, index, part * g)
    # shares of less than a voxel in all, with soft bins, count as one: their gradient would have no bound
    gaps = (confidence - positive).abs() / voxels.clamp_min(1)
    return gaps.sum(dim=2) / (voxels > 0).sum(dim=2).clamp_min(1)


def bins_of(p: Tensor, bins: int, binning: Binning) -> list[tuple[Tensor, Tensor]]:
    """For each bin that a voxel belongs to its index and the voxel's share, both of the shape of p."""
    if binning == "hard":
        return [((p.detach() * bins).long().clamp_max(bins - 1), torch.ones_like(p))]
    position = (p * bins - 0.5).clamp(0, bins - 1)  # whole numbers are the centres of bins
    below = position.detach().long()
    upper = position - below
    return [(below, 1 - upper), ((below + 1).clamp_max(bins - 1), upper)]
