"""Hausdorff loss by distance transforms (Karimi and Salcudean, IEEE TMI 39, 2020, arXiv 1904.10030, Eq. 8)."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from nnunet_ext.distance_maps import distance_to_boundary
from nnunet_ext.losses.targets import OutputForm, mean_of_present


@dataclass(frozen=True)
class HausdorffDTTerm:
    """Mean of (p - g)^2 (d_g^alpha + d_p^alpha), d the distance to the boundary of the truth g or of p > 1/2.

    There is no gradient through the distances. It is 0 for a perfect prediction; a class that a patch lacks has
    neither value nor gradient, and one that fills the patch no d_g. SciPy computes the distances of prediction and
    truth in each step on the CPU, one thread per structure.

    Attributes:
        form: of the target.
        spacing_mm: along the patch's axes.
        alpha: how much far errors weigh; the paper's is 2.
    """

    form: OutputForm
    spacing_mm: tuple[float, ...]
    alpha: float = 2.0

    def __call__(self, logits: Tensor, target: Tensor, *, epoch: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """See `LossTerm`."""
        found = self.form.foreground(logits, target)
        distances = [distances_of(masks, self.spacing_mm) ** self.alpha for masks in (found.g > 0.5, found.p > 0.5)]
        weighted = (found.p - found.g).square() * (distances[0] + distances[1])
        return mean_of_present(weighted.flatten(start_dim=2).mean(dim=2), found.present)


@torch.compiler.disable
def distances_of(masks: Tensor, spacing_mm: tuple[float, ...]) -> Tensor:
    """`distance_to_boundary` of masks (B, F, *spatial), fp32 on their device."""
    on_cpu = masks.detach().flatten(end_dim=1).cpu().numpy()  # (B F, *spatial)
    with ThreadPoolExecutor() as threads:
        maps = list(threads.map(partial(distance_to_boundary, spacing_mm=spacing_mm), on_cpu))
    return torch.from_numpy(np.stack(maps)).to(masks.device).reshape(masks.shape)  # (B, F, *spatial)
