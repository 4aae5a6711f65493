"""nnU-Net's default resampling of logits, in torch: linear, and across thick slices the nearest one.

nnU-Net resamples class by class with scikit-image in double precision. Here all classes of a few slices go through
torch's interpolation at once, so that what follows (softmax, sums over members) finds them in the cache and no volume
of all classes is needed at the image's size. The results differ by rounding.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

import torch
from nnunetv2.preprocessing.resampling.default_resampling import (
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from torch.nn import functional

from nnunet_ext.inference.accumulation.slabs import Slab, SlicedVolume, WholeVolume, across, pieces

# nnU-Net's own defaults, for plans that leave a setting out: those of older versions do.
DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(resample_data_or_seg_to_shape).parameters.items()
    if parameter.default is not inspect.Parameter.empty
}
LINEAR = {"is_seg": False, "order": 1, "order_z": 0}  # what nnU-Net's planner writes for probabilities


@dataclass(frozen=True)
class CoarseAxis:
    """What decides whether one axis is so coarse that it takes the nearest slice.

    Attributes:
        force_separate_z: True and False decide it; None leaves it to the spacing.
        separate_z_anisotropy_threshold: above which ratio of spacings an axis is coarse.
    """

    force_separate_z: bool | None
    separate_z_anisotropy_threshold: float


def coarse_axis_of(resampling: partial[Any]) -> CoarseAxis:
    """The settings of a plans' function; what the plans leave out is nnU-Net's default."""
    settings = {**DEFAULTS, **resampling.keywords}
    return CoarseAxis(settings["force_separate_z"], settings["separate_z_anisotropy_threshold"])


def is_linear(resampling: Callable[..., Any]) -> TypeGuard[partial[Any]]:
    """Whether a plans' function is nnU-Net's default with the settings that its planner writes for probabilities."""
    if not isinstance(resampling, partial) or resampling.func is not resample_data_or_seg_to_shape:
        return False
    settings = {**DEFAULTS, **resampling.keywords}
    return settings.keys() == DEFAULTS.keys() and all(settings[name] == value for name, value in LINEAR.items())


class LinearlyResampled:
    """What `resample_data_or_seg_to_shape` with order 1 returns, some slices at a time.

    Args:
        logits: (C, D, H, W).
        shape: of the result, without C.
        current_spacing_mm: of the logits.
        new_spacing_mm: of the result; with the other it decides whether one axis is so coarse that it takes the
            nearest slice.
        coarse_axis: what decides that.
    """

    def __init__(
        self,
        logits: torch.Tensor,
        shape: Sequence[int],
        current_spacing_mm: Sequence[float],
        new_spacing_mm: Sequence[float],
        coarse_axis: CoarseAxis,
    ) -> None:
        separate, coarse = determine_do_sep_z_and_axis(
            coarse_axis.force_separate_z,
            current_spacing_mm,
            new_spacing_mm,
            coarse_axis.separate_z_anisotropy_threshold,
        )
        self.axis = int(coarse) if separate else 0
        self.shape = [int(size) for size in shape]
        self.in_plane = [size for axis, size in enumerate(self.shape) if axis != self.axis]
        self.planes = logits.movedim(self.axis + 1, 0)  # (D, C, *in_plane)
        self.slices = self.shape[self.axis]
        self.device = logits.device
        self.neighbours = (nearest_slices if separate else adjacent_slices)(len(self.planes), self.slices)

    def slabs(self, part: slice) -> Iterator[Slab]:
        """See `SlicedVolume`; slabs of (C, *shape)."""
        classes = self.planes.shape[1]
        planes: dict[int, torch.Tensor] = {}  # two at most: those that the next slice lies between
        for piece in pieces(part, classes * math.prod(self.in_plane), self.device):
            values = torch.empty((classes, piece.stop - piece.start, *self.in_plane), device=self.device)
            for position, (lower, upper, share) in enumerate(self.neighbours[piece]):
                planes = {index: planes[index] for index in (lower, upper) if index in planes}
                for index in {lower, upper} - planes.keys():
                    planes[index] = in_plane_interpolated(self.planes[index], self.in_plane)
                torch.lerp(planes[lower], planes[upper], share, out=values[:, position])
            yield Slab(across(self.axis, piece, self.shape), values.movedim(1, self.axis + 1))


def resampled(
    logits: torch.Tensor,
    shape: Sequence[int],
    current_spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
    coarse_axis: CoarseAxis,
) -> SlicedVolume:
    """Logits (C, D, H, W) resampled to (C, *shape), see `LinearlyResampled`; themselves if they have that shape."""
    if list(logits.shape[1:]) == [int(size) for size in shape]:
        return WholeVolume(logits)
    return LinearlyResampled(logits, shape, current_spacing_mm, new_spacing_mm, coarse_axis)


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
