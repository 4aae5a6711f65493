"""Masks of whole blocks: which blocks of a grid are visible, and the same at other resolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

FEWEST_VISIBLE = 2  # an instance norm over one voxel has no variance


def block_grid(patch_size: Sequence[int], block_size: Sequence[int]) -> tuple[int, ...]:
    """The number of blocks along each axis of a patch.

    Args:
        patch_size: voxels along each spatial axis.
        block_size: voxels of a block along each axis.

    Raises:
        ValueError: if the numbers of axes differ, or the blocks do not fill the patch.
    """
    if len(patch_size) != len(block_size) or any(
        size % block for size, block in zip(patch_size, block_size, strict=True)
    ):
        raise ValueError(
            f"Blocks must fill the patch; found a patch of {list(patch_size)} voxels and blocks of "
            f"{list(block_size)}. Choose blocks that divide the patch, or change the patch in the plans."
        )
    return tuple(size // block for size, block in zip(patch_size, block_size, strict=True))


def hidden_blocks(grid: Sequence[int], ratio: float) -> int:
    """How many blocks of a grid a ratio hides: the ratio of them, rounded down.

    Raises:
        ValueError: if the ratio is not between 0 and 1, or leaves fewer than two blocks visible.
    """
    blocks = math.prod(grid)
    if not 0 <= ratio < 1:
        raise ValueError(f"The share of hidden blocks must be at least 0 and below 1; found {ratio:g}.")
    hidden = math.floor(ratio * blocks + 1e-9)  # 0.29 * 100 is 28.999999999999996
    if blocks - hidden < FEWEST_VISIBLE:
        raise ValueError(
            f"At least {FEWEST_VISIBLE} blocks of a patch must stay visible; a share of {ratio:g} hides {hidden} of "
            f"{blocks}. Hide less, or choose smaller blocks or a larger patch."
        )
    return hidden


def random_visible_blocks(samples: int, grid: Sequence[int], ratio: float, generator: torch.Generator) -> Tensor:
    """Masks of a batch, each drawn without replacement: the same number of hidden blocks in every sample.

    Args:
        samples: number of masks.
        grid: blocks along each axis.
        ratio: share of hidden blocks, see `hidden_blocks`.
        generator: the source of random numbers, on the CPU, so that all devices draw the same masks.

    Returns:
        (samples, 1, *grid), boolean, True where a block is visible.

    Raises:
        ValueError: see `hidden_blocks`.
    """
    hidden = hidden_blocks(grid, ratio)
    permutation = torch.rand((samples, math.prod(grid)), generator=generator).argsort(dim=1)
    return (permutation >= hidden).reshape(samples, 1, *grid)


def random_ratio(lowest: float, highest: float, generator: torch.Generator) -> float:
    """A share of hidden blocks, uniform between two values; both may be the same."""
    return lowest + (highest - lowest) * float(torch.rand((), generator=generator))


def visible_voxels(visible_blocks: Tensor, shape: Sequence[int]) -> Tensor:
    """The mask of a grid at another resolution of the same patch.

    Where a feature map is coarser than the grid along an axis, one of its voxels covers hidden and visible blocks;
    then all its voxels count as visible, as in the released code of S3D.

    Args:
        visible_blocks: (B, 1, *grid), boolean or 0 and 1.
        shape: of the feature map, spatial axes only.

    Returns:
        (B, 1, *shape), float32, 1 where visible.

    Raises:
        ValueError: if the shape is finer than the grid but not a multiple of it.
    """
    grid = visible_blocks.shape[2:]
    if any(size < blocks for size, blocks in zip(shape, grid, strict=True)):
        return torch.ones((len(visible_blocks), 1, *shape), device=visible_blocks.device)
    if any(size % blocks for size, blocks in zip(shape, grid, strict=True)):
        raise ValueError(
            f"A feature map must have a whole number of voxels per block; found {list(shape)} voxels for "
            f"{list(grid)} blocks. Choose blocks whose size is a multiple of the strides."
        )
    return functional.interpolate(visible_blocks.float(), size=tuple(shape), mode="nearest")


def blocks_of(visible: Tensor, block_size: Sequence[int]) -> Tensor:
    """The grid of a mask at full resolution, the reverse of `visible_voxels`: (B, 1, *patch) to (B, 1, *grid)."""
    index = (slice(None), slice(None), *(slice(None, None, step) for step in block_size))
    return visible[index]
