"""nnU-Net's default resampling of logits, in torch: linear, and nearest neighbour across thick slices.

nnU-Net resamples class by class with scikit-image in double precision. Here torch interpolates all classes of a few
slices at once, so that they are still in the cache for what follows (softmax, sums over members), and no volume of
all classes is allocated at the image's size. The results differ by rounding only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeGuard

import torch
from nnunetv2.preprocessing.resampling.default_resampling import (
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from torch.nn import functional

from nnunet_ext.inference.accumulation.slabs import Slab, SlicedVolume, WholeVolume, blocks, row_axis

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
        self.row_axis = row_axis(self.axis)
        self.planes = logits.movedim(self.axis + 1, 0)  # (D, C, h, w)
        self.slices = self.shape[self.axis]
        self.device = logits.device
        along_planes = nearest_slices if separate else adjacent_slices
        self.neighbours = Neighbours.of(along_planes, len(self.planes), self.slices, self.device)
        rows, wanted_rows = self.planes.shape[2], self.shape[self.row_axis]
        self.row_neighbours = Neighbours.of(adjacent_slices, rows, wanted_rows, self.device)

    def slabs(self, part: slice) -> Iterator[Slab]:
        """See `SlicedVolume`; slabs of (C, *shape)."""
        for where in blocks(part, self.axis, (self.planes.shape[1], *self.shape), self.device):
            yield Slab(where, self._interpolated(where[self.axis], where[self.row_axis]).movedim(0, self.axis + 1))

    def _interpolated(self, piece: slice, rows: slice) -> torch.Tensor:
        """(slices, C, rows, W): the axes are interpolated one after the other, the one that adds most values last."""
        if self.planes.shape[2] == self.shape[self.row_axis]:
            values = self.neighbours.between(self.planes[:, :, rows], 0, piece)
        else:
            needed = self.row_neighbours.needed(rows)
            values = self.neighbours.between(self.planes[:, :, needed], 0, piece)
            values = self.row_neighbours.between(values, 2, rows, first=needed.start)
        return columns_interpolated(values, self.shape[3 - self.axis - self.row_axis])


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


Place = tuple[int, int, float]  # indices of two slices, and the weight of the second


class Neighbours:
    """The old slices between which each new slice lies, on the device of the values.

    Args:
        places: of each new slice.
        device: where values are interpolated.
    """

    def __init__(self, places: Sequence[Place], device: torch.device) -> None:
        self._places = places
        self._lower = torch.tensor([lower for lower, _, _ in places], device=device)
        self._upper = torch.tensor([upper for _, upper, _ in places], device=device)
        self._shares = torch.tensor([share for _, _, share in places], device=device)
        self._takes_lower_only = not any(share for _, _, share in places)

    @staticmethod
    @lru_cache(maxsize=64)
    def of(places: Callable[[int, int], list[Place]], count: int, wanted: int, device: torch.device) -> Neighbours:
        """The same for all members of a case, so that none waits until the indices have reached the GPU."""
        return Neighbours(places(count, wanted), device)

    def needed(self, part: slice) -> slice:
        """The old slices that some of the new ones lie between."""
        return slice(self._places[part.start][0], self._places[part.stop - 1][1] + 1)

    def between(self, values: torch.Tensor, axis: int, part: slice, *, first: int = 0) -> torch.Tensor:
        """Some of the new slices along an axis, linear between their neighbours; float32.

        Args:
            values: the old slices from number `first` on.
            axis: the axis along which they follow each other.
            part: the new slices.
            first: number of the first old slice that `values` has.
        """
        lower = values.index_select(axis, self._lower[part] - first).float()
        if self._takes_lower_only:
            return lower
        upper = values.index_select(axis, self._upper[part] - first).float()
        return lower.lerp_(upper, self._shares[part].reshape(-1, *[1] * (values.ndim - axis - 1)))


def adjacent_slices(count: int, wanted: int) -> list[Place]:
    """For each new slice the two old ones whose centres it lies between; beyond the outermost centre, that slice."""
    found = []
    for index in range(wanted):
        place = min(max((index + 0.5) * count / wanted - 0.5, 0.0), count - 1.0)  # in units of the old slices
        lower = int(place)
        found.append((lower, min(lower + 1, count - 1), place - lower))
    return found


def nearest_slices(count: int, wanted: int) -> list[Place]:
    """For each new slice the old one whose centre is nearest; the upper one in a tie."""
    indices = [min(int((index + 0.5) * (count / wanted)), count - 1) for index in range(wanted)]
    return [(index, index, 0.0) for index in indices]


def columns_interpolated(values: torch.Tensor, columns: int) -> torch.Tensor:
    """(N, C, H, W) to (N, C, H, columns), linear between the centres and constant beyond the outermost ones."""
    if values.shape[3] == columns:
        return values
    lines = values.flatten(1, 2)  # (N, lines, W)
    wider = functional.interpolate(lines, size=columns, mode="linear", align_corners=False)
    return wider.unflatten(1, values.shape[1:3])
