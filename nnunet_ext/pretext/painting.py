"""Regions of an image that are painted over: a few boxes (in-painting), or all but a few boxes (out-painting)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nnunet_ext.pretext.random_boxes import is_chosen, random_boxes

MOST_BOXES = 5
ONE_MORE = 0.95  # probability of a further box


def painted_inside(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """True in up to five boxes with sides of a sixth to a third of the image's; (*shape), boolean."""
    painted = torch.zeros(tuple(shape), dtype=torch.bool)
    smallest, largest = [side // 6 for side in shape], [side // 3 for side in shape]
    for box in random_boxes(number_of_boxes(0, generator), shape, smallest, largest, generator).slices():
        painted[box] = True
    return painted


def painted_outside(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """False in one to five boxes with sides of three to four sevenths of the image's; (*shape), boolean."""
    painted = torch.ones(tuple(shape), dtype=torch.bool)
    smallest, largest = [side - side * 4 // 7 for side in shape], [side - side * 3 // 7 for side in shape]
    for box in random_boxes(number_of_boxes(1, generator), shape, smallest, largest, generator).slices():
        painted[box] = False
    return painted


def number_of_boxes(fewest: int, generator: torch.Generator) -> int:
    """A further box follows with probability 0.95, up to five."""
    count = fewest
    while count < MOST_BOXES and is_chosen(ONE_MORE, generator):
        count += 1
    return count
