"""Sliding window: runs a network over overlapping, transformed tiles of an image and blends its logits in fp32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

from nnunet_ext.inference.runtimes.batch_size import BatchSize
from nnunet_ext.inference.transforms.transform import Transform
from nnunet_ext.machine.tensor_room import IN_MEMORY, TensorRoom

Tile = tuple[slice | int, ...]  # over the spatial axes; a 2D configuration has a slice index in front
RunPatches = Callable[[torch.Tensor], torch.Tensor]  # (B, channels, *patch) to logits (B, C, *patch), see Runtime.run


@dataclass(frozen=True)
class TiledImage:
    """An image padded to the patch size, with its tiles and their blending weights.

    It is the same for all members of a model, so it is computed once per case.

    Attributes:
        image: (channels, *padded spatial).
        tiles: the location of every tile in the padded image.
        window: (*patch), the blending weight of each voxel of a tile.
        weight: (*padded spatial), the sum of the windows over all tiles.
        crop: undoes the padding, one slice per spatial axis.
        room: where the logits are kept.
    """

    image: torch.Tensor
    tiles: list[Tile]
    window: torch.Tensor
    weight: torch.Tensor
    crop: tuple[slice, ...]
    room: TensorRoom = IN_MEMORY

    @property
    def without_padding(self) -> torch.Tensor:
        """The image as it was before the padding, (channels, *spatial)."""
        cropped = (slice(None), *self.crop)
        return self.image[cropped]

    def showing(self, image: torch.Tensor) -> TiledImage:
        """The same tiles over another image of the same shape, (channels, *spatial) without the padding."""
        padded = torch.zeros_like(self.image)
        cropped = (slice(None), *self.crop)
        padded[cropped] = image
        return replace(self, image=padded)

    def to(self, device: torch.device) -> TiledImage:
        """The same with image, window and weight on a device; the logits are then accumulated there as well."""
        return replace(
            self,
            image=self.image.to(device, non_blocking=True),
            window=self.window.to(device),
            weight=self.weight.to(device),
        )


def tile_image(
    image: torch.Tensor, patch_size: Sequence[int], *, step_size: float = 0.5, gaussian: bool = True
) -> TiledImage:
    """Divides an image into the tiles of stock nnU-Net.

    Stock nnU-Net computes the Gaussian window in half precision, which makes logits wrong by up to 0.5 at the corners
    of a patch; here window and sums are fp32.

    Args:
        image: (channels, *spatial) with three spatial axes. With a two-dimensional patch each slice along the first
            axis is tiled on its own.
        patch_size: patch size of the configuration.
        step_size: distance between tiles as a fraction of the patch size.
        gaussian: weight the centre of a tile more than its border.
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
    run: RunPatches,
    tiled: TiledImage,
    transforms: Sequence[Transform],
    *,
    batch_size: BatchSize,
    tiles: Sequence[Tile] | None = None,
) -> torch.Tensor:
    """Logits of a network, averaged over exact transforms and blended over tiles as stock nnU-Net does.

    Tiles and their transformed copies share batches. If a batch does not fit into the memory of the GPU, it is
    repeated with half the patches.

    Args:
        run: runs the network on patches and returns fp32 logits on the image's device.
        tiled: the image.
        transforms: exact transforms to average over, at least the identity.
        batch_size: patches per batch; halved if a batch does not fit into memory.
        tiles: a subset of the image's tiles, at least one; the logits are then correct only where no other tile
            reaches. None means all tiles.

    Returns:
        (C, *spatial) fp32 on the image's device, without the padding.

    Raises:
        ValueError: if there are no tiles or no transforms.
        torch.OutOfMemoryError: if not even a single patch fits.
    """
    pairs = list(product(tiled.tiles if tiles is None else tiles, transforms))
    if not pairs:
        raise ValueError(
            f"A sliding window needs at least one tile and one transform; found "
            f"{len(tiled.tiles if tiles is None else tiles)} and {len(transforms)}. Without a transform pass the "
            f"identity."
        )
    logits: torch.Tensor | None = None
    start = 0
    while start < len(pairs):
        batch = pairs[start : start + batch_size.patches]
        regions = [(slice(None), *tile) for tile, _ in batch]
        patches = [tiled.image[region] for region in regions]
        try:
            seen = torch.stack([transform.apply(patch) for patch, (_, transform) in zip(patches, batch, strict=True)])
            outputs = run(seen)  # (B, C, *patch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            batch_size.patches = len(batch)
            batch_size.halve()
            continue
        if logits is None:
            logits = tiled.room.zeros((outputs.shape[1], *tiled.image.shape[1:]), outputs.device)
        for region, patch, (_, transform), output in zip(regions, patches, batch, outputs, strict=True):
            logits[region].addcmul_(transform.undo(output, patch), tiled.window)
        start += len(batch)
        tiled.room.release()
    assembled, weight = torch.as_tensor(logits), tiled.weight * len(transforms)
    for values in assembled:
        values.div_(weight)
        tiled.room.release()
    cropped = (slice(None), *tiled.crop)
    return assembled[cropped]
