"""The loss of volume contrast: similarities of crops must be their overlaps (VoCo, arXiv 2402.17300)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST = 1e-6  # keeps the logarithm finite at the largest error


def similarities(base: Tensor, targets: Tensor) -> Tensor:
    """Cosines of target and base crops, negative ones set to 0; no gradient flows to the base crops.

    Args:
        base: (B, base crops, features).
        targets: (B, target crops, features).

    Returns:
        (B, target crops, base crops), float32.
    """
    with torch.autocast(base.device.type, enabled=False):
        directions = functional.normalize(base.detach().float(), dim=2)
        return (functional.normalize(targets.float(), dim=2) @ directions.transpose(1, 2)).relu()


def overlap_loss(similarity: Tensor, overlap: Tensor) -> Tensor:
    """How far similarities s are from overlaps o.

    sum(o (-log(1 - |o - s|))) / sum(o), plus the mean of s^2 where o is 0; that mean is 0 if no o is 0.

    Args:
        similarity: (B, target crops, base crops), from 0 to 1.
        overlap: the same shape; each target has some.
    """
    distance = (overlap - similarity).abs().clamp(max=1)  # a rounded cosine may be above 1
    near = (overlap * -torch.log(1 - distance + SMALLEST)).sum() / overlap.sum()
    apart = (overlap == 0).float()
    return near + (similarity.square() * apart).sum() / apart.sum().clamp(min=1)


def separation_loss(base: Tensor) -> Tensor:
    """The mean cosine of two different base crops of an image, negative ones counted as 0.

    Args:
        base: (B, base crops, features), at least two crops.
    """
    with torch.autocast(base.device.type, enabled=False):
        directions = functional.normalize(base.float(), dim=2)
        cosines = (directions @ directions.transpose(1, 2)).relu()
    count = base.shape[1]
    pairs = cosines.triu(diagonal=1).sum(dim=(1, 2)) * 2 / (count * (count - 1))
    return pairs.mean()
