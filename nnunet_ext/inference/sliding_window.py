"""One network over one image: overlapping tiles, mirrored, blended with a Gaussian window, all in fp32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from torch import nn

from nnunet_ext.architectures.mirroring import Flip, mean_over_flips

Tile = tuple[slice | int, ...]  # over the spatial axes; a 2D configuration has a slice index in front


@dataclass(frozen=True)
class TiledImage:
    """An image padded to the patch size, with its tiles and the weights that they are blended with.

    It is the same for all members of a model, so it is made once a case.

    Attributes:
        image: (channels, *padded spatial).
        tiles: where the network looks.
        window: (*patch), the weight of a voxel by its place in the tile.
        weight: (*padded spatial), sum of the windows over the tiles.
        crop: undoes the padding, without the channel axis.
    """

    image: torch.Tensor
    tiles: list[Tile]
    window: torch.Tensor
    weight: torch.Tensor
    crop: tuple[slice, ...]


def tile_image(
    image: torch.Tensor, patch_size: Sequence[int], *, step_size: float = 0.5, gaussian: bool = True
) -> TiledImage:
    """Cuts an image (channels, *spatial) into stock nnU-Net's tiles.

    Stock computes the Gaussian window in half precision, which is wrong by up to half a logit at the corners of a
    patch; here window and sums are fp32.

    Args:
        image: three spatial axes; with a patch of two, each slice along the first axis is tiled on its own.
        patch_size: of the configuration.
        step_size: distance of tiles as a share of the patch.
        gaussian: weigh the centre of a tile more than its border.
    """
    padded, slicer = pad_nd_image(image, tuple(patch_size), "constant", {"value": 0}, True, None)
    tiles = list(tiles_of(padded.shape[1:], patch_size, step_size))
    window = (
        compute_gaussian(tuple(patch_size), 1.0 / 8, 10, dtype=torch.float32, device=torch.device("cpu"))
        if gaussian
        else torch.ones(tuple(patch_size))
    )
    weight = torch.zeros(padded.shape[1:])
    for tile in tiles:
        weight[tile] += window
    return TiledImage(padded, tiles, window, weight, tuple(slicer[1:]))


def tiles_of(shape: Sequence[int], patch_size: Sequence[int], step_size: float) -> Iterator[Tile]:
    """The tiles of a padded image, in stock nnU-Net's order."""
    tiled_shape = shape[-len(patch_size) :]
    steps = compute_steps_for_sliding_window(tuple(tiled_shape), tuple(patch_size), step_size)
    windows = [[slice(start, start + size) for start in axis] for axis, size in zip(steps, patch_size, strict=True)]
    slices = [range(size) for size in shape[: -len(patch_size)]]
    yield from product(*slices, *windows)


@torch.inference_mode()
def sliding_window_logits(
    network: nn.Module, tiled: TiledImage, flips: Sequence[Flip], *, device: torch.device
) -> torch.Tensor:
    """Logits of a network, (C, *spatial) in fp32 on the CPU: mean over flips, blended over tiles as stock does.

    Args:
        network: in evaluation mode, on `device`.
        tiled: of one image.
        flips: mirrored copies to average, see `mirror_flips`.
        device: where the network runs. On CUDA it runs under autocast, as stock does.
    """
    logits: torch.Tensor | None = None
    window = tiled.window.to(device)
    for tile in tiled.tiles:
        all_channels = (slice(None), *tile)
        patch = tiled.image[all_channels][None].to(device, non_blocking=True)  # (1, channels, *patch)
        with torch.autocast(device.type) if device.type == "cuda" else nullcontext():
            averaged = mean_over_flips(network, patch, flips)[0]  # (C, *patch)
        blended = (averaged * window).cpu()
        if logits is None:
            logits = torch.zeros((len(blended), *tiled.image.shape[1:]))
        logits[all_channels] += blended
    if logits is None:
        raise ValueError("An image has at least one tile; found none.")
    logits /= tiled.weight
    cropped = (slice(None), *tiled.crop)
    return logits[cropped]
