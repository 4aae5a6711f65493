"""Volumes in slabs: a slab that fits into the processor's cache is processed faster and in less memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeVar

import torch

Part = TypeVar("Part", covariant=True)

VALUES_PER_SLAB_CPU = 1 << 20
VALUES_PER_SLAB_GPU = 1 << 27  # on a GPU the number of calls matters, not the cache
LARGEST_SLICE = 2  # slabs; what is larger is divided into rows, and smaller pieces take longer with many classes

Where = tuple[slice, ...]  # over the spatial axes of a volume


@dataclass(frozen=True)
class Slab:
    """Some slices of a volume.

    Attributes:
        where: the part of the volume, one slice per spatial axis.
        values: the values there, (C, *size of where).
    """

    where: Where
    values: torch.Tensor


class Sliced(Protocol[Part]):
    """What can be iterated slice by slice, in memory or computed on demand.

    Attributes:
        slices: number of slices.
        device: device of their values.
    """

    slices: int
    device: torch.device

    def slabs(self, part: slice) -> Iterator[Part]:
        """The slices of `part`, a few at a time."""


SlicedVolume = Sliced[Slab]  # a volume (C, *spatial)


class WholeVolume:
    """A volume in memory; its slabs are views along the first spatial axis."""

    def __init__(self, volume: torch.Tensor) -> None:
        self.volume = volume
        self.slices = volume.shape[1]
        self.device = volume.device

    def slabs(self, part: slice) -> Iterator[Slab]:
        """See `SlicedVolume`."""
        for where in blocks(part, 0, self.volume.shape, self.device):
            all_channels = (slice(None), *where)
            yield Slab(where, self.volume[all_channels])


class TransposedVolume:
    """A volume with its spatial axes permuted."""

    def __init__(self, volume: SlicedVolume, axes: Sequence[int]) -> None:
        self.volume = volume
        self.axes = axes
        self.slices = volume.slices
        self.device = volume.device

    def slabs(self, part: slice) -> Iterator[Slab]:
        """See `SlicedVolume`; the slabs are views."""
        return map(self._turned, self.volume.slabs(part))  # unlike a loop, it does not keep the last slab

    def _turned(self, slab: Slab) -> Slab:
        where = tuple(slab.where[axis] for axis in self.axes)
        return Slab(where, slab.values.permute(0, *(axis + 1 for axis in self.axes)))


class MappedVolume:
    """A volume with a function applied to the values of each slab, (C, *size) to the same shape."""

    def __init__(self, volume: SlicedVolume, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.volume = volume
        self.function = function
        self.slices = volume.slices
        self.device = volume.device

    def slabs(self, part: slice) -> Iterator[Slab]:
        """See `SlicedVolume`."""
        return map(self._mapped, self.volume.slabs(part))  # unlike a loop, it does not keep the last slab

    def _mapped(self, slab: Slab) -> Slab:
        return Slab(slab.where, self.function(slab.values))


def pieces(part: slice, values_per_slice: int, device: torch.device) -> Iterator[slice]:
    """Divides a range of slices into slabs of at least one slice each."""
    thickness = max(1, values_per_slab(device) // max(1, values_per_slice))
    for start in range(part.start, part.stop, thickness):
        yield slice(start, min(start + thickness, part.stop))


def values_per_slab(device: torch.device) -> int:
    """The number of values that a slab should have."""
    return VALUES_PER_SLAB_CPU if device.type == "cpu" else VALUES_PER_SLAB_GPU


def largest_slab(device: torch.device) -> int:
    """The number of values of a slice above which it is divided into rows, and of these slabs."""
    return LARGEST_SLICE * values_per_slab(device)


def blocks(part: slice, axis: int, shape: Sequence[int], device: torch.device) -> Iterator[Where]:
    """The slabs of a range of slices; a slice that is too large for one slab is divided into rows.

    Args:
        part: the slices.
        axis: the spatial axis that they follow each other along.
        shape: (C, *spatial) of the volume.
        device: where it is computed.
    """
    spatial = tuple(shape[1:])
    rows_along = row_axis(axis)
    per_slice = math.prod(shape) // max(1, spatial[axis])
    for piece in pieces(part, per_slice, device):
        if len(spatial) == 1 or per_slice <= largest_slab(device):
            yield across(axis, piece, spatial)
            continue
        thickness = max(1, largest_slab(device) * spatial[rows_along] // per_slice)
        for start in range(0, spatial[rows_along], thickness):
            rows = slice(start, min(start + thickness, spatial[rows_along]))
            where = across(axis, piece, spatial)
            yield tuple(rows if other == rows_along else whole for other, whole in enumerate(where))


def row_axis(axis: int) -> int:
    """The axis along which a slice is divided into rows, for slices along another one: the first that is left."""
    return 1 if axis == 0 else 0


def across(axis: int, part: slice, shape: Sequence[int]) -> Where:
    """The location of a range of slices along one axis, in a volume of this spatial shape."""
    return tuple(part if other == axis else slice(0, size) for other, size in enumerate(shape))


def for_each_slab(volume: Sliced[Part], work: Callable[[Part], None]) -> None:
    """Calls `work` for every slab of a volume; on a CPU in as many threads as torch would use for one operation.

    Inside each of these threads torch is limited to that one thread. Otherwise each of the many small operations
    would wait for all threads, which takes up to forty times as long when other programs compete for the cores.

    Args:
        volume: the volume.
        work: called once per slab in any order, possibly in parallel; it must only write to its own slab's location.
    """
    threads = min(torch.get_num_threads(), volume.slices) if volume.device.type == "cpu" else 1
    bounds = [volume.slices * number // max(1, threads) for number in range(threads + 1)]
    parts = [slice(start, stop) for start, stop in pairwise(bounds)]

    def work_through(part: slice) -> None:
        for slab in volume.slabs(part):
            work(slab)

    if threads < 2:
        for part in parts:
            work_through(part)
        return
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=compute_alone) as pool:
            list(pool.map(work_through, parts))
    finally:
        torch.set_num_threads(before)  # the workers' calls also changed the default of threads started later


def compute_alone() -> None:
    """Limits torch to the calling thread for everything that this thread computes."""
    torch.get_num_threads()  # the first call initialises the thread; a later one would undo the next line
    torch.set_num_threads(1)


def in_one_piece(volume: SlicedVolume, shape: Sequence[int]) -> torch.Tensor:
    """A volume as one tensor of this shape, (C, *spatial): its own if it is in memory, otherwise `assembled`."""
    return volume.volume if isinstance(volume, WholeVolume) else assembled(volume, shape)


def assembled(volume: SlicedVolume, shape: Sequence[int]) -> torch.Tensor:
    """All slabs of a volume assembled into one float32 tensor of this shape, (C, *spatial)."""
    whole = torch.empty(tuple(shape), device=volume.device)

    def insert(slab: Slab) -> None:
        all_channels = (slice(None), *slab.where)
        whole[all_channels] = slab.values

    for_each_slab(volume, insert)
    return whole
