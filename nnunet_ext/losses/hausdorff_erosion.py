"""Hausdorff loss by erosion (Karimi and Salcudean, IEEE TMI 39, 2020, arXiv 1904.10030, Eqs. 9 and 10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_ext.losses.targets import OutputForm, mean_of_present

Rescaling = Literal["double", "min-max"]


@dataclass(frozen=True)
class HausdorffErosionTerm:
    """Mean over voxels of sum_k k^alpha b_k, where b_0 = (p - g)^2 and b_k is b_{k-1} eroded.

    An error that survives k erosions is about k voxels thick. The paper subtracts 1/2 after averaging over the cross
    of neighbours, which leaves at most 1/2 and therefore nothing after the second erosion. Twice that, the default,
    keeps an error of 1 at 1; published code stretches each b_k to the range from 0 to 1 instead.

    It is 0 for a perfect prediction; a class that a patch lacks has neither value nor gradient. Distances are in
    voxels, whatever the spacing is.

    Attributes:
        form: of the target.
        alpha: how much thick errors weigh; the paper's is 2.
        erosions: how many; the paper's are 10.
        rescaling: "double", or "min-max" for each structure of each patch.
    """

    form: OutputForm
    alpha: float = 2.0
    erosions: int = 10
    rescaling: Rescaling = "double"

    def __call__(self, logits: Tensor, target: Tensor, *, epoch: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """See `LossTerm`."""
        found = self.form.foreground(logits, target)
        left = (found.p - found.g).square()
        total = found.p.new_zeros(found.p.shape[:2])  # (B, F)
        for k in range(1, self.erosions + 1):
            left = eroded(left, self.rescaling)
            total = total + k**self.alpha * left.flatten(start_dim=2).mean(dim=2)
        return mean_of_present(total, found.present)


def eroded(values: Tensor, rescaling: Rescaling = "double") -> Tensor:
    """Values (B, F, *spatial) averaged over each voxel's cross of neighbours, less 1/2, not below 0, and rescaled.

    What lies outside counts as 0.
    """
    axes = values.ndim - 2
    channels = values.shape[1]
    kernel = cross(axes).to(values).expand(channels, 1, *[3] * axes)
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[axes]
    left = F.relu(convolve(values, kernel, padding=1, groups=channels) - 0.5)
    return 2 * left if rescaling == "double" else stretched(left)


def cross(axes: int) -> Tensor:
    """A voxel and its neighbours along each axis, (3, ...), with the sum 1."""
    kernel = torch.zeros([3] * axes)
    for axis in range(axes):
        index = [1] * axes
        for position in range(3):
            index[axis] = position
            kernel[tuple(index)] = 1
    return kernel / kernel.sum()


def stretched(values: Tensor) -> Tensor:
    """Each structure of each patch (B, F, *spatial) stretched to the range from 0 to 1, unless it is constant."""
    axes = tuple(range(2, values.ndim))
    low, high = values.amin(dim=axes, keepdim=True), values.amax(dim=axes, keepdim=True)
    width = high - low
    return torch.where(width > 0, (values - low) / width.where(width > 0, 1), values)
