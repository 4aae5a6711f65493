"""nnU-Net's default resampling of logits, in torch: linear, and nearest neighbour across thick slices.

nnU-Net resamples class by class with scikit-image in double precision. Here torch interpolates all classes of a few
slices at once, so that they are still in the cache for what follows (softmax, sums over members), and no volume of
all classes is allocated at the image's size. The results differ by rounding only.
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

# nnU-Net's own defaults, for plans that leave a setting out, as those of older versions do.
DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(resample_data_or_seg_to_shape).parameters.items()
    if parameter.default is not inspect.Parameter.empty
}
LINEAR = {"is_seg": False, "order": 1, "order_z": 0}  # what nnU-Net's planner writes for probabilities


@dataclass(frozen=True)
class CoarseAxis:
    """The settings that decide whether one axis is so coarse that the nearest slice is taken along it.

    Attributes:
        force_separate_z: True or False decides it for all images; None decides by the spacing.
        separate_z_anisotropy_threshold: ratio of spacings above which an axis is coarse.
    """

    force_separate_z: bool | None
    separate_z_anisotropy_threshold: float


def coarse_axis_of(resampling: partial[Any]) -> CoarseAxis:
    """The settings of the plans' resampling function; nnU-Net's defaults where the plans leave one out."""
    settings = {**DEFAULTS, **resampling.keywords}
    return CoarseAxis(settings["force_separate_z"], settings["separate_z_anisotropy_threshold"])


def is_linear(resampling: Callable[..., Any]) -> TypeGuard[partial[Any]]:
    """Whether the function is nnU-Net's default with the settings that its planner writes for probabilities."""
    if not isinstance(resampling, partial) or resampling.func is not resample_data_or_seg_to_shape:
        return False
    settings = {**DEFAULTS, **resampling.keywords}
    return settings.keys() == DEFAULTS.keys() and all(settings[name] == value for name, value in LINEAR.items())


class LinearlyResampled:
    """The result of `resample_data_or_seg_to_shape` with order 1, computed a few slices at a time.

    Args:
        logits: (C, D, H, W).
        shape: spatial shape of the result, without C.
        current_spacing_mm: spacing of the logits.
        new_spacing_mm: spacing of the result. The two spacings decide whether one axis is so coarse that the nearest
            slice is taken along it.
        coarse_axis: the settings of that decision.
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
        planes: dict[int, torch.Tensor] = {}  # at most the two that the next slice lies between
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
    """Logits (C, D, H, W) resampled to (C, *shape), see `LinearlyResampled`; unchanged if they have that shape."""
    if list(logits.shape[1:]) == [int(size) for size in shape]:
        return WholeVolume(logits)
    return LinearlyResampled(logits, shape, current_spacing_mm, new_spacing_mm, coarse_axis)


Neighbours = tuple[int, int, float]  # indices of two slices, and the weight of the second


def adjacent_slices(count: int, wanted: int) -> list[Neighbours]:
    """For each new slice the two old ones whose centres it lies between; beyond the outermost centre, that slice."""
    found = []
    for index in range(wanted):
        place = min(max((index + 0.5) * count / wanted - 0.5, 0.0), count - 1.0)  # in units of the old slices
        lower = int(place)
        found.append((lower, min(lower + 1, count - 1), place - lower))
    return found


def nearest_slices(count: int, wanted: int) -> list[Neighbours]:
    """For each new slice the old one whose centre is nearest; the upper one in a tie."""
    indices = [min(int((index + 0.5) * (count / wanted)), count - 1) for index in range(wanted)]
    return [(index, index, 0.0) for index in indices]


def in_plane_interpolated(plane: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """(C, H, W) to (C, *shape), linear between the centres of pixels and constant beyond the outermost ones."""
    if list(plane.shape[1:]) == list(shape):
        return plane.float()
    return functional.interpolate(plane[None].float(), size=tuple(shape), mode="bilinear", align_corners=False)[0]
