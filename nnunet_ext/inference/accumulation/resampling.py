"""From the resolution and axes of a network back to those of the image."""

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
    """Resamples logits or probabilities (C, *spatial) to the cropped image with the plans' resampling function.

    nnU-Net's default function is replaced by an equal one in torch, which runs when slices are requested; any other
    function is called as it is, immediately.

    Returns:
        A volume (C, *spatial) with the shape and the axes of the cropped image.
    """
    shape = properties["shape_after_cropping_and_before_resampling"]
    image_spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
    network_spacing = list(configuration.spacing)
    if len(network_spacing) < len(shape):
        network_spacing = [image_spacing[0], *network_spacing]  # 2D: the spacing between slices is unchanged
    resampling = configuration.resampling_fn_probabilities
    if is_linear(resampling):
        volume = resampled(values, shape, network_spacing, image_spacing, coarse_axis_of(resampling))
    else:
        whole = torch.as_tensor(resampling(values.cpu(), shape, network_spacing, image_spacing))
        volume = WholeVolume(whole.to(values.device))
    return TransposedVolume(volume, plans.transpose_backward)


def require_linear_resampling(configurations: Iterable[ConfigurationManager]) -> None:
    """Refuses fast resampling where interpolated probabilities could leave [0, 1].

    Raises:
        ValueError: if a configuration resamples with anything but nnU-Net's default function.
    """
    for configuration in configurations:
        resampling = configuration.resampling_fn_probabilities
        if not is_linear(resampling):
            raise ValueError(
                "Fast resampling needs linear interpolation, nnU-Net's default, which keeps probabilities in [0, 1]; "
                f"the plans use {getattr(resampling, 'func', resampling).__name__} with "
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
    """The number of voxels of a box along each axis."""
    return tuple(part.stop - part.start for part in box)


def common_box(boxes: Sequence[Box]) -> Box:
    """The smallest box that encloses all boxes; they usually agree, because all models crop the same image."""
    return tuple(
        slice(min(part.start for part in axis), max(part.stop for part in axis)) for axis in zip(*boxes, strict=True)
    )


def place(volume: torch.Tensor, box: Box, target: Box, outside: torch.Tensor) -> torch.Tensor:
    """Puts (C, *box) into (C, *target), with `outside` (C) everywhere else; no copy if the boxes are equal."""
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
    """Puts a (*box) array into an image of this shape, with `fill` outside the box."""
    full = np.full(tuple(shape), fill, dtype=volume.dtype)
    full[box] = volume
    return full


def outside_logits(channels: int, *, regions: bool) -> torch.Tensor:
    """(C): finite logits whose probabilities are those of `outside_probabilities` to float32 precision."""
    return torch.where(outside_probabilities(channels, regions=regions) > 0, CERTAIN_LOGIT, -CERTAIN_LOGIT)


def outside_probabilities(channels: int, *, regions: bool) -> torch.Tensor:
    """(C): the probabilities outside nnU-Net's crop: 1 for background, or 0 for every region."""
    probabilities = torch.zeros(channels)
    if not regions:
        probabilities[0] = 1
    return probabilities
