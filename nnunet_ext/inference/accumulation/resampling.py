"""From a network's resolution and axes back to the image's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_ext.inference.accumulation.linear_resampling import coarse_axis_of, is_linear, resampled
from nnunet_ext.inference.accumulation.slabs import SlicedVolume, TransposedVolume, WholeVolume

Box = tuple[slice, ...]  # in the image's axes

CERTAIN_LOGIT = 40.0


def in_image(
    values: torch.Tensor, properties: dict, plans: PlansManager, configuration: ConfigurationManager
) -> SlicedVolume:
    """Logits or probabilities (C, *spatial) at the cropped image's shape, resampled as the plans say, on its axes.

    nnU-Net's default is computed in torch when slices are asked for; any other function of the plans as it is, now.
    """
    shape = properties["shape_after_cropping_and_before_resampling"]
    image_spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
    network_spacing = list(configuration.spacing)
    if len(network_spacing) < len(shape):
        network_spacing = [image_spacing[0], *network_spacing]  # 2D: slices keep their distance
    resampling = configuration.resampling_fn_probabilities
    if is_linear(resampling):
        volume = resampled(values, shape, network_spacing, image_spacing, coarse_axis_of(resampling))
    else:
        whole = torch.as_tensor(resampling(values.cpu(), shape, network_spacing, image_spacing))
        volume = WholeVolume(whole.to(values.device))
    return TransposedVolume(volume, plans.transpose_backward)


def require_linear_resampling(configurations: Iterable[ConfigurationManager]) -> None:
    """Refuses fast resampling where probabilities would not stay probabilities.

    Raises:
        ValueError: if plans have another function than nnU-Net's default.
    """
    for configuration in configurations:
        resampling = configuration.resampling_fn_probabilities
        if not is_linear(resampling):
            raise ValueError(
                "Fast resampling needs linear interpolation, nnU-Net's default, which keeps probabilities in [0, 1]; "
                f"the plans have {getattr(resampling, 'func', resampling).__name__} with "
                f"{getattr(resampling, 'keywords', {})}. Leave out --fast-resampling."
            )


def image_shape(properties: dict, plans: PlansManager) -> tuple[int, ...]:
    """Shape of the image before cropping, in its own axes."""
    shape = properties["shape_before_cropping"]
    return tuple(int(shape[axis]) for axis in plans.transpose_backward)


def crop_box(properties: dict, plans: PlansManager) -> Box:
    """Where nnU-Net's crop to the nonzero region lies in the image, in the image's axes."""
    bounds = properties["bbox_used_for_cropping"]
    return tuple(slice(int(bounds[axis][0]), int(bounds[axis][1])) for axis in plans.transpose_backward)


def box_shape(box: Box) -> tuple[int, ...]:
    """How many voxels a box has along each axis."""
    return tuple(part.stop - part.start for part in box)


def common_box(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of the boxes; usually they are equal, because all see the same image."""
    return tuple(
        slice(min(part.start for part in axis), max(part.stop for part in axis)) for axis in zip(*boxes, strict=True)
    )


def place(volume: torch.Tensor, box: Box, target: Box, outside: torch.Tensor) -> torch.Tensor:
    """Puts (C, *box) into (C, *target), with `outside` (C) where the box does not reach; no copy if they agree."""
    if box == target:
        return volume
    shape = box_shape(target)
    placed = outside.reshape(-1, *[1] * len(shape)).repeat(1, *shape)  # (C, *target)
    inner = [
        slice(part.start - frame.start, part.stop - frame.start) for part, frame in zip(box, target, strict=True)
    ]
    all_channels_inner = (slice(None), *inner)
    placed[all_channels_inner] = volume
    return placed


def in_whole_image(volume: np.ndarray, box: Box, shape: Sequence[int], fill: float = 0) -> np.ndarray:
    """A (*box) array in a full image of `shape`, `fill` outside."""
    full = np.full(tuple(shape), fill, dtype=volume.dtype)
    full[box] = volume
    return full


def outside_logits(channels: int, *, regions: bool) -> torch.Tensor:
    """(C): finite logits of the same, certain to the last bit of a probability."""
    return torch.where(outside_probabilities(channels, regions=regions) > 0, CERTAIN_LOGIT, -CERTAIN_LOGIT)


def outside_probabilities(channels: int, *, regions: bool) -> torch.Tensor:
    """(C): what is known outside of nnU-Net's crop: background for certain, or none of the regions."""
    probabilities = torch.zeros(channels)
    if not regions:
        probabilities[0] = 1
    return probabilities
