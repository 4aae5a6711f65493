"""A chain of image changes whose parameters have gradients (AdvChain, Chen et al., Medical Image Analysis 2022).

Noise, then a bias field, then a deformation, then an affine map. Written from the paper's description; its code was
not used. Images are (B, channels, *spatial) with two or three spatial axes and a standard deviation of about 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import radians

import torch
import torch.nn.functional as F
from torch import Tensor

CONTROL_POINTS = 4  # of bias field and deformation along each axis
SQUARINGS = 4  # of the integration of a velocity field


@dataclass(frozen=True)
class Bounds:
    """How far each change may go. The numbers are the paper's.

    Attributes:
        noise: the Euclidean length of the noise of one sample, over all voxels and channels.
        bias: the bias field lies between 1 - bias and 1 + bias.
        deformation_voxels: of the velocity along each axis.
        rotation_degrees: around each axis.
        scale: a length changes by this share at most.
        shift: a share of the patch along each axis.
        planar: in 3D nothing moves along the first axis: for slices that are much thicker than their pixels.
    """

    noise: float = 1.0
    bias: float = 0.3
    deformation_voxels: float = 1.5
    rotation_degrees: float = 30.0
    scale: float = 0.2
    shift: float = 0.1
    planar: bool = False


@dataclass(frozen=True)
class Chain:
    """Parameters of the four changes of each sample, within their bounds.

    Attributes:
        noise: (B, channels, *spatial).
        bias: (B, 1, *control points).
        velocity: (B, axes, *control points), in voxels.
        affine: (B, parameters): rotations in radians (one in 2D, three in 3D), scales and shifts of each axis.
    """

    noise: Tensor
    bias: Tensor
    velocity: Tensor
    affine: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All of them, in the order of the attributes."""
        return self.noise, self.bias, self.velocity, self.affine


def random_chain(images: Tensor, bounds: Bounds) -> Chain:
    """Parameters drawn evenly within their bounds, the noise in all directions."""
    batch, axes = len(images), images.ndim - 2
    points = [CONTROL_POINTS] * axes
    new = images.new_empty
    return limited(
        Chain(
            torch.randn_like(images),
            new(batch, 1, *points).uniform_(-bounds.bias, bounds.bias),
            new(batch, axes, *points).uniform_(-bounds.deformation_voxels, bounds.deformation_voxels),
            new(batch, len(affine_bounds(axes, bounds))).uniform_(-1, 1)
            * images.new_tensor(affine_bounds(axes, bounds)),
        ),
        bounds,
    )


def ascended(chain: Chain, gradients: Sequence[Tensor], bounds: Bounds) -> Chain:
    """One step along gradients of the shape of each parameter, as long as the bounds, and back within them.

    A sample's parameter without a gradient stays, and so does one whose gradient is not finite.
    """
    usable = [finite_or_0(gradient) for gradient in gradients]
    noise, bias, velocity, affine = (gradient / largest(gradient) for gradient in usable)
    limits = chain.affine.new_tensor(affine_bounds(chain.velocity.shape[1], bounds))
    return limited(
        Chain(
            chain.noise + bounds.noise * unit(noise),
            chain.bias + bounds.bias * bias,
            chain.velocity + bounds.deformation_voxels * velocity,
            chain.affine + limits * affine,
        ),
        bounds,
    )


def limited(chain: Chain, bounds: Bounds) -> Chain:
    """The nearest parameters within the bounds; the noise has the length of its bound."""
    axes = chain.velocity.shape[1]
    limits = chain.affine.new_tensor(affine_bounds(axes, bounds))
    moving = chain.velocity.new_tensor(moving_axes(axes, bounds)).reshape(1, axes, *[1] * axes)
    return Chain(
        bounds.noise * unit(chain.noise),
        chain.bias.clamp(-bounds.bias, bounds.bias),
        chain.velocity.clamp(-bounds.deformation_voxels, bounds.deformation_voxels) * moving,
        chain.affine.clamp(-limits, limits),
    )


def moving_axes(axes: int, bounds: Bounds) -> list[float]:
    """1 for each axis along which voxels may move, 0 for others."""
    return [0.0 if bounds.planar and axes == 3 and axis == 0 else 1.0 for axis in range(axes)]


def affine_bounds(axes: int, bounds: Bounds) -> list[float]:
    """The largest value of each affine parameter."""
    moving = moving_axes(axes, bounds)
    turning = [1.0] if axes == 2 else [1.0, moving[0], moving[0]]
    return [
        *(radians(bounds.rotation_degrees) * allowed for allowed in turning),
        *(bounds.scale * allowed for allowed in moving),
        *(bounds.shift * allowed for allowed in moving),
    ]


def unit(values: Tensor) -> Tensor:
    """Each sample with the Euclidean length 1; 0 stays 0."""
    length = of_each_sample(values.flatten(start_dim=1).norm(dim=1), values)
    return values / length.where(length > 0, 1)


def finite_or_0(values: Tensor) -> Tensor:
    """Each sample, with zeros for one that is not finite everywhere."""
    finite = of_each_sample(values.isfinite().flatten(start_dim=1).all(dim=1), values)
    return values.where(finite, 0)


def largest(values: Tensor) -> Tensor:
    """The largest absolute value of each sample, 1 where all are 0; to divide by."""
    found = of_each_sample(values.abs().flatten(start_dim=1).amax(dim=1), values)
    return found.where(found > 0, 1)


def of_each_sample(numbers: Tensor, values: Tensor) -> Tensor:
    """One number per sample (B), shaped to go with values (B, ...)."""
    return numbers.reshape(-1, *[1] * (values.ndim - 1))  # (B, 1, ..., 1)


def changed(images: Tensor, chain: Chain) -> Tensor:
    """Images after all four changes; what comes from outside is 0."""
    grid = images.shape[2:]
    seen = (images + chain.noise) * (1 + upsampled(chain.bias, grid))
    return warped(warped(seen, displacement(chain.velocity, grid)), affine_displacement(chain.affine, grid))


def undone(values: Tensor, chain: Chain) -> Tensor:
    """Values of voxels of changed images, (B, any, *spatial), where those voxels were before; 0 where none was."""
    grid = values.shape[2:]
    back = warped(values, affine_displacement(chain.affine, grid, inverse=True))
    return warped(back, displacement(-chain.velocity, grid))


def upsampled(points: Tensor, grid: Sequence[int]) -> Tensor:
    """Control points (B, any, *points), linear in between."""
    return F.interpolate(
        points, size=tuple(grid), mode="bilinear" if len(grid) == 2 else "trilinear", align_corners=True
    )


def displacement(velocity: Tensor, grid: Sequence[int]) -> Tensor:
    """The displacement (B, axes, *grid), in voxels, that a velocity at control points leads to in a unit of time.

    By scaling and squaring; that of -v is the inverse of that of v, up to interpolation.
    """
    field = upsampled(velocity, grid) / 2**SQUARINGS
    for _ in range(SQUARINGS):
        field = field + warped(field, field, border="border")
    return field


def affine_displacement(parameters: Tensor, grid: Sequence[int], *, inverse: bool = False) -> Tensor:
    """The displacement (B, axes, *grid), in voxels, of a map that turns and scales around the centre, then shifts.

    Args:
        parameters: (B, parameters), see `Chain`.
        grid: lengths of the axes.
        inverse: of the inverse map.
    """
    axes = len(grid)
    turns = 1 if axes == 2 else 3
    linear = rotation(parameters[:, :turns], axes) * (
        1 + parameters[:, None, turns : turns + axes]
    )  # (B, axes, axes)
    shift = parameters[:, turns + axes :] * parameters.new_tensor(tuple(grid))  # (B, axes)
    centred = voxel_indices(grid, parameters) - (parameters.new_tensor(tuple(grid)) - 1) / 2  # (*grid, axes)
    flat = centred.flatten(end_dim=-2)  # (voxels, axes)
    if inverse:
        target = torch.linalg.solve(linear, (flat[None] - shift[:, None]).transpose(1, 2)).transpose(1, 2)
    else:
        target = flat @ linear.transpose(1, 2) + shift[:, None]  # (B, voxels, axes)
    return (target - flat).transpose(1, 2).unflatten(2, tuple(grid))


def rotation(angles: Tensor, axes: int) -> Tensor:
    """Rotation matrices (B, axes, axes) of angles (B, 1) in 2D, or around each of three axes one after the other."""
    planes = [(0, 1)] if axes == 2 else [(1, 2), (0, 2), (0, 1)]
    identity = torch.eye(axes, dtype=angles.dtype, device=angles.device)
    result = identity.expand(len(angles), axes, axes)
    for position, (first, second) in enumerate(planes):
        keep, turn = torch.zeros_like(identity), torch.zeros_like(identity)
        keep[first, first] = keep[second, second] = 1
        turn[first, second], turn[second, first] = -1, 1
        angle = angles[:, position, None, None]
        result = (identity - keep + angle.cos() * keep + angle.sin() * turn) @ result
    return result


def voxel_indices(grid: Sequence[int], like: Tensor) -> Tensor:
    """The index of every voxel, (*grid, axes)."""
    steps = [torch.arange(length, dtype=like.dtype, device=like.device) for length in grid]
    return torch.stack(torch.meshgrid(*steps, indexing="ij"), dim=-1)


def warped(values: Tensor, field: Tensor, *, border: str = "zeros") -> Tensor:
    """The values (B, any, *spatial) at each voxel's index plus its displacement (B, axes, *spatial), interpolated."""
    grid = values.shape[2:]
    positions = voxel_indices(grid, field) + field.movedim(1, -1)  # (B, *grid, axes)
    halves = (positions.new_tensor(tuple(grid)) - 1).clamp_min(1) / 2
    normalised = (positions / halves - 1).flip(-1)  # grid_sample wants the last axis first
    return F.grid_sample(values, normalised, mode="bilinear", padding_mode=border, align_corners=True)
