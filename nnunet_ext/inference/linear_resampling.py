"""nnU-Net's default resampling of logits, in torch: linear, and across thick slices the nearest one.

nnU-Net resamples class by class with scikit-image in double precision. Here all classes of a few slices go through
torch's interpolation at once, so that what follows (softmax, sums over members) finds them in the cache and no volume
of all classes is needed at the image's size. The results differ by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from nnunetv2.preprocessing.resampling.default_resampling import (
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from torch.nn import functional

from nnunet_ext.inference.slabs import Slab, across, assembled, slabs_of, slices_per_slab

SEPARATION = ("force_separate_z", "separate_z_anisotropy_threshold")  # settings about coarse axes


def is_linear(resampling: Callable[..., Any]) -> bool:
    """Whether a plans' function is nnU-Net's default with the settings that its planner writes for probabilities."""
    if not isinstance(resampling, partial) or resampling.func is not resample_data_or_seg_to_shape:
        return False
    settings = {"is_seg": False, "order": 3, "order_z": 0, **resampling.keywords}
    known = {"is_seg": False, "order": 1, "order_z": 0}
    only_known = settings.keys() <= {*known, *SEPARATION}
    return only_known and all(settings[name] == value for name, value in known.items())


def resample_linear(
    logits: torch.Tensor,
    shape: Sequence[int],
    current_spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
    **settings: Any,
) -> torch.Tensor:
    """What `resampled_slabs` yields as one volume, (C, *shape); the logits themselves if they have that shape."""
    if list(logits.shape[1:]) == [int(size) for size in shape]:
        return logits
    slabs = resampled_slabs(logits, shape, current_spacing_mm, new_spacing_mm, **settings)
    return assembled(slabs, (len(logits), *map(int, shape)), logits.device)


def resampled_slabs(
    logits: torch.Tensor,
    shape: Sequence[int],
    current_spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
    *,
    force_separate_z: bool | None = None,
    **threshold: float,
) -> Iterator[Slab]:
    """What `resample_data_or_seg_to_shape` with order 1 returns, some slices at a time.

    Args:
        logits: (C, D, H, W).
        shape: of the result, without C.
        current_spacing_mm: of the logits.
        new_spacing_mm: of the result; with the other it decides whether one axis is so coarse that it takes the
            nearest slice.
        force_separate_z: decides it instead.
        threshold: `separate_z_anisotropy_threshold`, above which ratio of spacings an axis is coarse.

    Yields:
        Slabs of (C, *shape); views of the logits if they have that shape.
    """
    target = [int(size) for size in shape]
    if list(logits.shape[1:]) == target:
        yield from slabs_of(logits)
        return
    separate, coarse = determine_do_sep_z_and_axis(force_separate_z, current_spacing_mm, new_spacing_mm, **threshold)
    axis = int(coarse) if separate else 0
    slices = logits.movedim(axis + 1, 0)  # (D, C, *in_plane)
    in_plane = [size for other, size in enumerate(target) if other != axis]
    neighbours = (nearest_slices if separate else adjacent_slices)(len(slices), target[axis])
    thickness = slices_per_slab(len(logits) * math.prod(in_plane), logits.device)
    planes: dict[int, torch.Tensor] = {}  # two at most, which are between the slices that come next
    for start in range(0, target[axis], thickness):
        part = slice(start, min(start + thickness, target[axis]))
        values = torch.empty((len(logits), part.stop - start, *in_plane), device=logits.device)  # (C, S, *in_plane)
        for position, (lower, upper, share) in enumerate(neighbours[part]):
            planes = {index: planes[index] for index in (lower, upper) if index in planes}
            for index in {lower, upper} - planes.keys():
                planes[index] = in_plane_interpolated(slices[index], in_plane)
            torch.lerp(planes[lower], planes[upper], share, out=values[:, position])
        yield Slab(across(axis, part, target), values.movedim(1, axis + 1))


Neighbours = tuple[int, int, float]  # indices of two slices, and how much the second counts


def adjacent_slices(count: int, wanted: int) -> list[Neighbours]:
    """For each new slice the two whose centres it lies between; beyond the outer centres these count alone."""
    found = []
    for index in range(wanted):
        place = min(max((index + 0.5) * count / wanted - 0.5, 0.0), count - 1.0)  # in units of the old slices
        lower = int(place)
        found.append((lower, min(lower + 1, count - 1), place - lower))
    return found


def nearest_slices(count: int, wanted: int) -> list[Neighbours]:
    """For each new slice the one whose centre is nearest; of a tie the upper one."""
    indices = [min(int((index + 0.5) * (count / wanted)), count - 1) for index in range(wanted)]
    return [(index, index, 0.0) for index in indices]


def in_plane_interpolated(plane: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """(C, H, W) to (C, *shape), linearly between the centres of pixels; constant beyond the outer ones."""
    if list(plane.shape[1:]) == list(shape):
        return plane.float()
    return functional.interpolate(plane[None].float(), size=tuple(shape), mode="bilinear", align_corners=False)[0]
