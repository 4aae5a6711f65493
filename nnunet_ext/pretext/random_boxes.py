"""Random boxes in an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Boxes:
    """Boxes in an image, in their order.

    Attributes:
        starts: (boxes, axes), int64, the first voxel along each axis.
        sides: (boxes, axes), int64, voxels along each axis, at least 1.
    """

    starts: Tensor
    sides: Tensor

    def slices(self) -> Iterator[tuple[slice, ...]]:
        """The index of each box."""
        for start, stop in zip(self.starts.tolist(), (self.starts + self.sides).tolist(), strict=True):
            yield tuple(map(slice, start, stop))


def random_integers(lowest: Tensor, highest: Tensor, generator: torch.Generator) -> Tensor:
    """An integer between two bounds, both included, for each element; int64."""
    share = torch.rand(lowest.shape, generator=generator, dtype=torch.float64)
    return lowest + (share * (highest - lowest + 1)).long()


def random_boxes(
    count: int, shape: Sequence[int], smallest: Sequence[int], largest: Sequence[int], generator: torch.Generator
) -> Boxes:
    """Boxes with uniform sides, each at a uniform place inside of the image.

    Args:
        count: number of boxes.
        shape: of the image, spatial axes only.
        smallest: shortest side along each axis; raised to 1.
        largest: longest side along each axis; raised to the shortest, lowered to that of the image.
        generator: the source of random numbers, on the CPU.
    """
    size = torch.tensor([list(shape)] * count, dtype=torch.int64).reshape(count, len(shape))
    lowest = torch.tensor(list(smallest)).clamp(min=1).minimum(size)
    highest = torch.tensor(list(largest)).maximum(lowest).minimum(size)
    sides = random_integers(lowest, highest, generator)
    return Boxes(random_integers(torch.zeros_like(size), size - sides, generator), sides)


def is_chosen(probability: float, generator: torch.Generator) -> bool:
    """True with this probability."""
    return float(torch.rand((), generator=generator)) < probability
