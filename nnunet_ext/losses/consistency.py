"""Consistency of a student with a teacher on images without labels (arXiv 1703.01780, 1907.07034)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from nnunet_ext.losses.targets import probabilities_of

LogitsOf = Callable[[Tensor], Tensor]


class TeacherConsistency:
    """The mean squared difference of probabilities where the teacher is certain; 0 without images, as in validation.

    Student and teacher see the same images with noise of their own.

    Args:
        student: images (B, channels, *spatial) to logits (B, C, *spatial).
        teacher: the same, without a gradient.
        regions: the outputs are regions.
        noise: standard deviation of the noise, which is cut off at twice of it.

    Attributes:
        images: (B, channels, *spatial) of the batch without labels, or None.
        most_entropy: the largest entropy of the teacher at voxels that count, as a share of its maximum.
    """

    def __init__(self, student: LogitsOf, teacher: LogitsOf, *, regions: bool, noise: float) -> None:
        self.student = student
        self.teacher = teacher
        self.regions = regions
        self.noise = noise
        self.images: Tensor | None = None
        self.most_entropy = 1.0

    def __call__(self, logits: Tensor, target: Tensor, *, epoch: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """See `LossTerm`; logits and target are of the labelled images and are not used."""
        if self.images is None:
            return logits.new_zeros(())
        with torch.no_grad():
            taught = probabilities_of(self.teacher(self.noisy(self.images)), regions=self.regions)
        found = probabilities_of(self.student(self.noisy(self.images)), regions=self.regions)
        certain = relative_entropy(taught, regions=self.regions) < self.most_entropy
        return mean_where((found - taught).square(), certain)

    def noisy(self, images: Tensor) -> Tensor:
        """Images with new noise."""
        return images + (self.noise * torch.randn_like(images)).clamp(-2 * self.noise, 2 * self.noise)


def relative_entropy(probabilities: Tensor, *, regions: bool) -> Tensor:
    """The entropy of probabilities (B, C, *spatial) as a share of its maximum.

    Returns:
        (B, 1, *spatial) for classes; for regions (B, C, *spatial), each region's own.
    """
    entropy = torch.special.entr(probabilities)
    if regions:
        return (entropy + torch.special.entr(1 - probabilities)) / math.log(2)
    return entropy.sum(dim=1, keepdim=True) / math.log(probabilities.shape[1])


def mean_where(values: Tensor, kept: Tensor) -> Tensor:
    """The mean of values (B, C, *spatial) where a mask (B, 1 or C, *spatial) is set; 0 where it nowhere is."""
    mask = kept.to(values.dtype).expand_as(values)
    return (mask * values).sum() / mask.sum().clamp_min(1)
