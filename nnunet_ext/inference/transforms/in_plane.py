"""Linear maps of a plane applied to whole volumes: resampling, and what of the volume stays in view."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nnunet_ext.inference.transforms.plane import Plane

FADE = 1 / 8  # of a side: a vote fades to 0 over this border, as wide as the standard deviation of nnU-Net's window


def resampled(volume: Tensor, matrix: Tensor, plane: Plane) -> Tensor:
    """Reads a volume at other places of a plane, with linear interpolation.

    Beyond the volume its outermost voxels are continued: an edge of zeros could be taken for anatomy.

    Args:
        volume: (C, *spatial).
        matrix: (2, 2); the value at an offset from the centre, in voxels along the plane, is read at matrix @ offset.
        plane: the two axes.

    Returns:
        (C, *spatial), fp32.
    """
    planes = volume.movedim(plane, (-2, -1))  # (C, *others, rows, columns)
    rows, columns = planes.shape[-2:]
    stack = planes.reshape(len(volume), -1, rows, columns).transpose(0, 1).float()  # (slices, C, rows, columns)
    offsets = mapped_offsets((rows, columns), matrix, volume.device)
    half = half_sides((rows, columns), volume.device).clamp_min(0.5)
    grid = (offsets / half).flip(-1)  # grid_sample takes columns before rows, from -1 to 1
    read = functional.grid_sample(
        stack, grid.expand(len(stack), -1, -1, -1), mode="bilinear", padding_mode="border", align_corners=True
    )
    return read.transpose(0, 1).reshape(planes.shape).movedim((-2, -1), plane)


def field_of_view(shape: Sequence[int], matrix: Tensor, plane: Plane, device: torch.device) -> Tensor:
    """How much the vote of a transformed volume counts, see `Transform.field_of_view`.

    The transformed volume has the shape of the original, so some voxels leave it, and near its border the network
    lacks their surroundings. The vote therefore fades from 1 to 0 over the outer eighth of each side, without a step.

    Args:
        shape: spatial shape of the volume.
        matrix: (2, 2), maps offsets from the centre in the original volume to those in the transformed one.
        plane: the two axes.
        device: where the result is needed.

    Returns:
        (*spatial) in [0, 1].
    """
    sides = (shape[plane[0]], shape[plane[1]])
    to_border = (
        half_sides(sides, device) - mapped_offsets(sides, matrix, device).abs()
    )  # (rows, columns, 2) in voxels
    weights = (to_border / (FADE * torch.tensor(sides, device=device))).amin(-1).clamp_(0, 1)
    in_place = [size if axis - len(shape) in plane else 1 for axis, size in enumerate(shape)]
    return weights.reshape(in_place).expand(tuple(shape))


def mapped_offsets(sides: Sequence[int], matrix: Tensor, device: torch.device) -> Tensor:
    """matrix @ offset for each voxel of a plane, (rows, columns, 2), offsets from the centre in voxels."""
    axes = [torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in sides]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return (offsets @ matrix.double().T).float().to(device)


def half_sides(sides: Sequence[int], device: torch.device) -> Tensor:
    """Distance from the centre of a plane to its outermost voxels along each axis, in voxels."""
    return (torch.tensor(sides, dtype=torch.float32, device=device) - 1) / 2
