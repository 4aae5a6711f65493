"""Crops of a patch: a grid of base crops, random ones, and how much of one lies in the others (VoCo)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_ext.pretext.random_boxes import random_integers

BOTTLENECK_VOXELS = 2  # of a crop along an axis; an instance norm over one voxel has no variance


@dataclass(frozen=True)
class CropGrid:
    """Base crops side by side in the middle of a patch.

    Attributes:
        counts: crops along each axis.
        sides: voxels of a crop along each axis.
        margin: voxels of the patch before the first crop along each axis.
    """

    counts: tuple[int, ...]
    sides: tuple[int, ...]
    margin: tuple[int, ...]

    def base_starts(self) -> Tensor:
        """The first voxel of each base crop, (crops, axes), int64; the last axis runs fastest."""
        steps = [range(count) for count in self.counts]
        numbers = torch.tensor(list(itertools.product(*steps)))
        return numbers * torch.tensor(self.sides) + torch.tensor(self.margin)

    def random_starts(self, count: int, generator: torch.Generator) -> Tensor:
        """The first voxels of crops at uniform places within the grid, (count, axes), int64."""
        lowest = torch.tensor([self.margin] * count)
        room = torch.tensor([(n - 1) * side for n, side in zip(self.counts, self.sides, strict=True)])
        return random_integers(lowest, lowest + room, generator)

    def overlaps(self, starts: Tensor) -> Tensor:
        """The share of each crop (crops, axes) that lies in each base crop: (crops, base crops), rows sum to 1."""
        sides = torch.tensor(self.sides)
        common = (sides - (starts[:, None] - self.base_starts()).abs()).clamp(min=0)
        return common.prod(dim=2) / sides.prod()


def crop_grid(patch_size: Sequence[int], strides: Sequence[int], most: int) -> CropGrid:
    """As many base crops along each axis as span two voxels of the bottleneck, up to `most`.

    Sides are multiples of the strides: residual encoders cannot halve odd sizes.

    Args:
        patch_size: voxels along each axis.
        strides: voxels of the patch for one of the bottleneck, along each axis.
        most: base crops along an axis.

    Raises:
        ValueError: if the patch is too small for two crops.
    """
    counts = tuple(
        max(1, min(most, size // (BOTTLENECK_VOXELS * stride)))
        for size, stride in zip(patch_size, strides, strict=True)
    )
    if math.prod(counts) < 2:
        raise ValueError(
            f"Volume contrast needs at least two base crops that span two voxels of the bottleneck; a patch of "
            f"{list(patch_size)} voxels with strides of {list(strides)} has room for one. Choose a larger patch."
        )
    sides = tuple(
        size // count // stride * stride for size, count, stride in zip(patch_size, counts, strides, strict=True)
    )
    margin = tuple((size - count * side) // 2 for size, count, side in zip(patch_size, counts, sides, strict=True))
    return CropGrid(counts, sides, margin)


def crops_at(image: Tensor, starts: Tensor, sides: Sequence[int]) -> Tensor:
    """Crops of an image (channels, *spatial) at their first voxels (crops, axes): (crops, channels, *sides)."""
    windows = [
        (slice(None), *(slice(at, at + side) for at, side in zip(start, sides, strict=True)))
        for start in starts.tolist()
    ]
    return torch.stack([image[window] for window in windows])
