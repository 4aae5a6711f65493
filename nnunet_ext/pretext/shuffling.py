"""Voxels shuffled within many small boxes: the texture is lost, the shape stays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nnunet_ext.pretext.random_boxes import Boxes


def voxels_of(boxes: Boxes, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """All voxels of all boxes, box after box, on the device of the boxes.

    Returns:
        The number of the box and the flat index in the image of each voxel, both (voxels,), int64.
    """
    volumes = boxes.sides.prod(dim=1)
    device = boxes.sides.device
    box = torch.arange(len(volumes), device=device).repeat_interleave(volumes)
    inside = torch.arange(len(box), device=device) - (volumes.cumsum(0) - volumes)[box]
    flat, step = torch.zeros_like(inside), 1
    for axis in reversed(range(len(shape))):
        side = boxes.sides[box, axis]
        flat += (boxes.starts[box, axis] + inside % side) * step
        inside = inside.div(side, rounding_mode="floor")
        step *= shape[axis]
    return box, flat


def shuffled_sources(shape: Sequence[int], boxes: Boxes, generator: torch.Generator) -> Tensor:
    """From where each voxel takes its value, if the voxels of each box are shuffled.

    Every box reads the unshuffled image; where boxes overlap, the last one counts.

    Args:
        shape: of the image, spatial axes only.
        boxes: on the device of the generator.
        generator: the source of random numbers.

    Returns:
        (voxels of the image,), int64, flat indices.
    """
    box, flat = voxels_of(boxes, shape)
    position = torch.arange(len(flat), device=flat.device)
    order = torch.randperm(len(flat), generator=generator, device=flat.device)
    order = order[torch.argsort(box[order], stable=True)]  # random within each box, boxes one after the other
    everywhere = torch.arange(math.prod(shape), device=flat.device)
    last = torch.full_like(everywhere, -1).scatter_reduce(0, flat, position, "amax")
    return torch.where(last < 0, everywhere, flat[order][last.clamp(min=0)]) if len(flat) else everywhere
