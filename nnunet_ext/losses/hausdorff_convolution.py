"""Hausdorff loss by convolutions with balls (Karimi and Salcudean, IEEE TMI 39, 2020, arXiv 1904.10030, Eq. 12)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_ext.losses.targets import OutputForm, mean_of_present


@dataclass(frozen=True)
class HausdorffConvTerm:
    """Mean over voxels of sum_r r^alpha [h(B_r g^c) f_pg + h(B_r g) f_gp + h(B_r p^c) f_gp + h(B_r p) f_pg].

    B_r x is the mean of x over a ball of the radius r, x^c = 1 - x, h(x) = relu(x - 1/2), f_gp = (g - p)^2 g and
    f_pg = (p - g)^2 p: an error counts where a ball around it lies mostly on one side. What lies outside the patch
    repeats its border. It is 0 for a perfect prediction; a class that a patch lacks has neither value nor gradient.
    Radii are in voxels. Along an axis into which it does not fit, as in a stack of few slices, a ball is cut.

    Attributes:
        form: of the target.
        alpha: how much far errors weigh; the paper's is 2.
        radii: in voxels; the paper's are 3, 6, ..., 18. Those that fit along no axis of the patch are left out.
    """

    form: OutputForm
    alpha: float = 2.0
    radii: tuple[int, ...] = (3, 6, 9, 12, 15, 18)

    def __call__(self, logits: Tensor, target: Tensor, *, epoch: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """See `LossTerm`."""
        found = self.form.foreground(logits, target)
        p, g = found.p, found.g
        missed, added = (g - p).square() * g, (p - g).square() * p
        total = torch.zeros_like(p)
        for radius in self.radii:
            if 2 * radius + 1 > max(p.shape[2:]):
                continue
            mean_g, mean_p = mean_over_ball(g, radius), mean_over_ball(p, radius)
            outside = half(1 - mean_g) * added + half(1 - mean_p) * missed
            inside = half(mean_g) * missed + half(mean_p) * added
            total = total + radius**self.alpha * (outside + inside)
        return mean_of_present(total.flatten(start_dim=2).mean(dim=2), found.present)


def half(values: Tensor) -> Tensor:
    """What exceeds 1/2."""
    return F.relu(values - 0.5)


def mean_over_ball(values: Tensor, radius: int) -> Tensor:
    """The mean of values (B, F, *spatial) over a ball around each voxel, by the Fourier transform.

    Along an axis that is shorter than 2 r + 1 the ball is cut to the longest odd number of voxels that fits.
    """
    axes = values.ndim - 2
    reach = [min(radius, (length - 1) // 2) for length in values.shape[2:]]
    kernel = ball(radius, reach).to(values)
    padded = F.pad(values, [steps for steps in reversed(reach) for _ in range(2)], mode="replicate")
    size = padded.shape[2:]
    spatial = tuple(range(-axes, 0))
    product = torch.fft.rfftn(padded, dim=spatial) * torch.fft.rfftn(kernel, s=size, dim=spatial)
    means = torch.fft.irfftn(product, s=size, dim=spatial)
    # the kernel begins at index 0, so that means lie twice its reach further than the first voxel of their ball
    inner = (..., *(slice(2 * steps, length) for steps, length in zip(reach, size, strict=True)))
    return means[inner]


def ball(radius: int, reach: Sequence[int]) -> Tensor:
    """A ball with the sum 1, as far as it reaches along each axis: (2 reach + 1, ...)."""
    steps = [torch.arange(-furthest, furthest + 1) for furthest in reach]
    grids = torch.stack(torch.meshgrid(*steps, indexing="ij"))
    inside = (grids.square().sum(dim=0) <= radius**2).float()
    return inside / inside.sum()
