"""One network over one image: overlapping tiles, transformed, blended with a Gaussian window, all in fp32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

from nnunet_ext.inference.runtimes.batch_size import BatchSize
from nnunet_ext.inference.transforms.transform import Transform

Tile = tuple[slice | int, ...]  # over the spatial axes; a 2D configuration has a slice index in front
RunPatches = Callable[[torch.Tensor], torch.Tensor]  # (B, channels, *patch) to logits (B, C, *patch), see Runtime.run


@dataclass(frozen=True)
class TiledImage:
    """An image padded to the patch size, with its tiles and the weights that they are blended with.

    It is the same for all members of a model, so it is made once per case.

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
    run: RunPatches,
    tiled: TiledImage,
    transforms: Sequence[Transform],
    *,
    batch_size: BatchSize,
    tiles: Sequence[Tile] | None = None,
) -> torch.Tensor:
    """Logits of a network: mean over exact transforms, blended over tiles as stock does.

    Tiles and their transformed copies go through the network together, several patches per batch. Where a batch does
    not fit into the memory of a GPU, half of it is tried.

    Args:
        run: the network; gives logits in fp32 where the image is.
        tiled: of one image.
        transforms: exact ones, to average over; at least the identity.
        batch_size: patches at a time; is halved where memory asks for it.
        tiles: only these ones of the image's, at least one; the logits are then right only where no other tile
            reaches. None takes all.

    Returns:
        (C, *spatial) fp32, where the image is, without the padding.

    Raises:
        ValueError: if there are no tiles or no transforms.
        torch.OutOfMemoryError: if not even a single patch fits.
    """
    pairs = list(product(tiled.tiles if tiles is None else tiles, transforms))
    if not pairs:
        raise ValueError(
            f"At least one tile and one transform are needed; found {len(tiled.tiles)} and {len(transforms)}."
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
            logits = torch.zeros((outputs.shape[1], *tiled.image.shape[1:]), device=outputs.device)
        for region, patch, (_, transform), output in zip(regions, patches, batch, outputs, strict=True):
            logits[region].addcmul_(transform.undo(output, patch), tiled.window)
        start += len(batch)
    assembled = torch.as_tensor(logits).div_(tiled.weight * len(transforms))
    cropped = (slice(None), *tiled.crop)
    return assembled[cropped]
