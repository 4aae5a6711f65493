"""One network over one image: overlapping tiles, mirrored, blended with a Gaussian window, all in fp32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from torch import nn

from nnunet_ext.architectures.mirroring import Flip
from nnunet_ext.inference.runtimes.batch_size import BatchSize, batch_size_for
from nnunet_ext.inference.runtimes.precision import Arithmetic

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

    def to(self, device: torch.device) -> TiledImage:
        """With image, window and weight on a device, where the logits are then summed up, too."""
        return replace(
            self,
            image=self.image.to(device, non_blocking=True),
            window=self.window.to(device),
            weight=self.weight.to(device),
        )


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
    network: nn.Module,
    tiled: TiledImage,
    flips: Sequence[Flip],
    *,
    device: torch.device,
    arithmetic: Arithmetic | None = None,
    batch_size: BatchSize | None = None,
    tiles: Sequence[Tile] | None = None,
) -> torch.Tensor:
    """Logits of a network: mean over flips, blended over tiles as stock does; (C, *spatial) fp32, where the image is.

    Tiles and their mirrored copies go through the network together, several patches a batch. Where a batch does not
    fit into the memory of a GPU, half of it is tried.

    Args:
        network: in evaluation mode, on `device`; (B, channels, *patch) to (B, C, *patch).
        tiled: of one image.
        flips: mirrored copies to average, see `mirror_flips`.
        device: where the network runs.
        arithmetic: in which precision; None is single precision.
        batch_size: patches at a time; None takes what `batch_size_for` says. Is halved where memory asks for it.
        tiles: only these ones of the image's, at least one; the logits are then right only where no other tile
            reaches. None takes all.

    Raises:
        ValueError: if there are no tiles or no flips.
        torch.OutOfMemoryError: if not even a single patch fits.
    """
    pairs = list(product(tiled.tiles if tiles is None else tiles, flips))
    if not pairs:
        raise ValueError(f"At least one tile and one flip are needed; found {len(tiled.tiles)} and {len(flips)}.")
    batch_size = batch_size or batch_size_for(tiled.window.shape, device)
    arithmetic = arithmetic or Arithmetic()
    logits: torch.Tensor | None = None
    start = 0
    while start < len(pairs):
        batch = pairs[start : start + batch_size.patches]
        try:
            outputs = run_batch(network, tiled, batch, device, arithmetic)  # (B, C, *patch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            batch_size.patches = len(batch)
            batch_size.halve()
            continue
        if logits is None:
            logits = torch.zeros((outputs.shape[1], *tiled.image.shape[1:]), device=outputs.device)
        for (tile, flip), output in zip(batch, outputs, strict=True):
            all_channels = (slice(None), *tile)
            logits[all_channels].addcmul_(mirrored(output, flip), tiled.window)
        start += len(batch)
    assembled = torch.as_tensor(logits).div_(tiled.weight * len(flips))
    cropped = (slice(None), *tiled.crop)
    return assembled[cropped]


@torch.inference_mode()
def run_batch(
    network: nn.Module,
    tiled: TiledImage,
    batch: Sequence[tuple[Tile, Flip]],
    device: torch.device,
    arithmetic: Arithmetic,
) -> torch.Tensor:
    """Logits of some tiles, (B, C, *patch) in fp32 where the image is, mirrored as their patches were."""
    regions = [((slice(None), *tile), flip) for tile, flip in batch]
    patches = torch.stack([mirrored(tiled.image[region], flip) for region, flip in regions])
    if device.type == "cuda" and patches.device.type == "cpu":
        patches = patches.pin_memory()  # only then the copy runs beside the network
    with arithmetic.context(device):
        outputs = network(patches.to(device, arithmetic.weights, non_blocking=True))
    return outputs.to(tiled.image.device).float()


def mirrored(patch: torch.Tensor, flip: Flip) -> torch.Tensor:
    """(channels, *patch) mirrored along spatial axes; the patch itself if there are none."""
    return torch.flip(patch, [axis + 1 for axis in flip]) if flip else patch  # behind the channels
