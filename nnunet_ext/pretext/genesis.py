"""The corruption of Models Genesis: shuffled voxels, changed grey values, painted regions (arXiv 1908.06912)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_ext.pretext.grey_values import grey_range, random_curve, through_curve
from nnunet_ext.pretext.painting import painted_inside, painted_outside
from nnunet_ext.pretext.random_boxes import Boxes, is_chosen, random_boxes
from nnunet_ext.pretext.shuffling import shuffled_sources


@dataclass(frozen=True)
class GenesisOptions:
    """How often an image is corrupted in which way.

    Attributes:
        shuffling: probability that voxels are shuffled within boxes.
        boxes: how many boxes are shuffled.
        grey_values: probability that grey values change.
        painting: probability that a region is replaced by noise.
        inside: probability that boxes are painted over, not all that is outside of boxes.
    """

    shuffling: float = 0.5
    boxes: int = 10_000
    grey_values: float = 0.9
    painting: float = 0.9
    inside: float = 0.2


def corrupted(image: Tensor, options: GenesisOptions, generator: torch.Generator) -> Tensor:
    """An image to restore; channels have the same places shuffled and painted, and their own grey values.

    Curves and noise have the range of the channel's values, from the first to the 99th percentile.

    Args:
        image: (channels, *spatial), normalised in any way.
        options: what is done how often.
        generator: the source of random numbers, on the CPU.

    Returns:
        (channels, *spatial).
    """
    shape = image.shape[1:]
    grey = grey_range(image, generator)
    voxelwise = torch.Generator(image.device)  # millions of numbers, faster on the image's device
    voxelwise.manual_seed(int(torch.randint(2**62, (), generator=generator)))
    changed = grey.normalised(image)
    if is_chosen(options.shuffling, generator):
        changed = shuffled(changed, options.boxes, generator, voxelwise)
    if is_chosen(options.grey_values, generator):
        changed = torch.stack([through_curve(channel, random_curve(generator)) for channel in changed])
    if is_chosen(options.painting, generator):
        painted = (painted_inside if is_chosen(options.inside, generator) else painted_outside)(shape, generator)
        noise = torch.rand(image.shape, generator=voxelwise, device=image.device, dtype=image.dtype)
        changed = torch.where(painted.to(image.device), noise, changed)
    return grey.restored(changed)


def shuffled(image: Tensor, count: int, generator: torch.Generator, voxelwise: torch.Generator) -> Tensor:
    """An image (channels, *spatial) whose voxels are shuffled in boxes with sides of up to a tenth of the image's."""
    shape = image.shape[1:]
    boxes = random_boxes(count, shape, [1] * len(shape), [side // 10 for side in shape], generator)
    there = Boxes(boxes.starts.to(image.device), boxes.sides.to(image.device))
    return image.flatten(1)[:, shuffled_sources(shape, there, voxelwise)].reshape(image.shape)
