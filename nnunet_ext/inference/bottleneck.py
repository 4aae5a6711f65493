"""What a network makes of a part of an image, as a few numbers: the features of its bottleneck, averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
from torch import Tensor, nn

from nnunet_ext.architectures.feature_taps import is_unet

BATCH = 4  # slices that a network of slices sees at once
Ends = Sequence[tuple[int, int]]  # first voxel and the one behind the last along each axis


def bottleneck_of(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Returns the features of the coarsest level, (B, channels, *spatial), of images (B, channels, *spatial).

    Raises:
        ValueError: if the network has no such level that is known.
    """
    if is_unet(network):
        return lambda image: network.encoder(image)[-1]  # type: ignore[operator]
    own = getattr(network, "feature_taps", None)
    if own is None:
        raise ValueError(
            f"Features are those of the bottleneck of a U-Net or of a network with feature taps (SegResNet, VNet, "
            f"UNETR, SwinUNETR, LCOVNet); found {type(network).__name__}. Give another model with -m, or take "
            f"another strategy."
        )
    taps = own()
    return lambda image: taps(image).decoder[-1]


@torch.inference_mode()
def pooled_features(
    run: Callable[[Tensor], Tensor], image: Tensor, part: Ends, patch_size: Sequence[int]
) -> np.ndarray:
    """The mean bottleneck features of the patches that cover a part of an image.

    Args:
        run: of `bottleneck_of`.
        image: (channels, *spatial), preprocessed, on the network's device.
        part: of the image; a part that is smaller than a patch is seen with what is around it.
        patch_size: of the network; with one axis less than the image it runs slice by slice.

    Returns:
        (features,), float32.
    """
    flat = len(patch_size) < image.ndim - 1
    ends = around(part[-len(patch_size) :], patch_size, image.shape[-len(patch_size) :])
    region = image[index_of([*part[: -len(patch_size)], *ends], leading=1)]
    layers = region.transpose(0, 1) if flat else region[None]  # (B, channels, *patch axes)
    pooled = [
        run(batch).mean(dim=tuple(range(2, batch.ndim)))
        for patch in patches_of(layers, patch_size)
        for batch in patch.split(BATCH)
    ]
    return torch.cat(pooled).mean(dim=0).float().cpu().numpy()


def around(part: Ends, patch_size: Sequence[int], shape: Sequence[int]) -> list[tuple[int, int]]:
    """The part, widened to a patch along each axis as far as the image goes."""
    found = []
    for (start, stop), length, size in zip(part, patch_size, shape, strict=True):
        wanted = min(max(stop - start, length), size)
        begin = min(max((start + stop - wanted) // 2, 0), size - wanted)
        found.append((begin, begin + wanted))
    return found


def patches_of(layers: Tensor, patch_size: Sequence[int]) -> Iterator[Tensor]:
    """Patches that cover (B, channels, *spatial) evenly, padded with zeros where it is smaller than one."""
    padded = pad_nd_image(layers, patch_size, "constant", {"value": 0})
    steps = compute_steps_for_sliding_window(tuple(padded.shape[2:]), tuple(patch_size), 1.0)
    for starts in product(*steps):
        ends = [(start, start + length) for start, length in zip(starts, patch_size, strict=True)]
        yield padded[index_of(ends, leading=2)]


def index_of(part: Ends, *, leading: int) -> tuple[slice, ...]:
    """The part as an index, behind some axes that are kept whole."""
    return (*[slice(None)] * leading, *(slice(start, stop) for start, stop in part))


def in_preprocessed(
    box: Ends, shape: Sequence[int], properties: Mapping[str, Any], transpose_forward: Sequence[int]
) -> list[tuple[int, int]]:
    """Where a box of an image is after nnU-Net's transposition, cropping and resampling; at least one voxel.

    Args:
        box: on the axes of the reader.
        shape: (*spatial) of the preprocessed image.
        properties: what nnU-Net recorded when it preprocessed the image.
        transpose_forward: of the plans.
    """
    found = []
    cropped = properties["bbox_used_for_cropping"]
    for axis, (first, last), size in zip(transpose_forward, cropped, shape, strict=True):
        scale = size / (last - first)
        start, stop = ((end - first) * scale for end in box[axis])
        begin = min(max(int(start), 0), size - 1)
        found.append((begin, min(max(round(stop), begin + 1), size)))
    return found
