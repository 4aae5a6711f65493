"""Two images fused with a coefficient that changes from box to box (VolumeFusion, arXiv 2306.16925)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_ext.pretext.random_boxes import random_boxes, random_integers


@dataclass(frozen=True)
class FusionOptions:
    """How images are fused.

    Attributes:
        steps: class k stands for the coefficient k / steps.
        fewest_boxes: of an image.
        most_boxes: of an image.
        shortest_side: share of the patch along each axis; 8 of 160 voxels.
        longest_side: share of the patch along each axis; 100 of 160 voxels.
    """

    steps: int = 4
    fewest_boxes: int = 10
    most_boxes: int = 39
    shortest_side: float = 0.05
    longest_side: float = 0.625

    @property
    def classes(self) -> int:
        """The number of coefficients."""
        return self.steps + 1


def random_classes(shape: Sequence[int], options: FusionOptions, generator: torch.Generator) -> Tensor:
    """The class of each voxel: 0 outside of all boxes, one class per box, later boxes over earlier ones.

    Returns:
        (*shape), int64.
    """
    count = int(random_integers(torch.tensor(options.fewest_boxes), torch.tensor(options.most_boxes), generator))
    smallest, largest = (
        [int(share * side) for side in shape] for share in (options.shortest_side, options.longest_side)
    )
    boxes = random_boxes(count, shape, smallest, largest, generator)
    lowest = torch.zeros(count, dtype=torch.int64)
    of_boxes = random_integers(lowest, lowest + options.steps, generator)
    classes = torch.zeros(tuple(shape), dtype=torch.int64)
    for box, box_class in zip(boxes.slices(), of_boxes.tolist(), strict=True):
        classes[box] = box_class
    return classes


def fused(foreground: Tensor, background: Tensor, classes: Tensor, steps: int) -> Tensor:
    """The weighted sum of two images: coefficient 0 is the background, 1 the foreground.

    Args:
        foreground: (B, channels, *spatial).
        background: the same shape.
        classes: (B, 1, *spatial), from 0 to `steps`.
        steps: class k stands for the coefficient k / steps.
    """
    coefficient = classes.to(foreground.dtype) / steps
    return coefficient * foreground + (1 - coefficient) * background
