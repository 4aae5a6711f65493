"""Volumes in pieces: what fits into a processor's cache is computed faster, and takes less memory, than the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch

VALUES_PER_SLAB_CPU = 1 << 20
VALUES_PER_SLAB_GPU = 1 << 27  # there the number of calls counts, not the cache

Where = tuple[slice, ...]  # over the spatial axes of a volume


@dataclass(frozen=True)
class Slab:
    """Some slices of a volume.

    Attributes:
        where: over the spatial axes of the volume.
        values: (C, *size of where).
    """

    where: Where
    values: torch.Tensor


class SlicedVolume(Protocol):
    """A volume (C, *spatial) whose slices can be had one after the other, whether they exist already or not.

    Attributes:
        slices: how many there are.
        device: where they are.
    """

    slices: int
    device: torch.device

    def slabs(self, part: slice) -> Iterator[Slab]:
        """The slices of `part`, some at a time."""


class WholeVolume:
    """A volume that exists; its slabs are views along the first spatial axis."""

    def __init__(self, volume: torch.Tensor) -> None:
        self.volume = volume
        self.slices = volume.shape[1]
        self.device = volume.device

    def slabs(self, part: slice) -> Iterator[Slab]:
        """See `SlicedVolume`."""
        shape = self.volume.shape[1:]
        for piece in pieces(part, self.volume.numel() // max(1, shape[0]), self.device):
            yield Slab(across(0, piece, shape), self.volume[:, piece])


class TransposedVolume:
    """Another volume with its spatial axes in another order."""

    def __init__(self, volume: SlicedVolume, axes: Sequence[int]) -> None:
        self.volume = volume
        self.axes = axes
        self.slices = volume.slices
        self.device = volume.device

    def slabs(self, part: slice) -> Iterator[Slab]:
        """See `SlicedVolume`; views."""
        for slab in self.volume.slabs(part):
            where = tuple(slab.where[axis] for axis in self.axes)
            yield Slab(where, slab.values.permute(0, *(axis + 1 for axis in self.axes)))


class MappedVolume:
    """Another volume with a function of each slab's values, (C, *size) to the same."""

    def __init__(self, volume: SlicedVolume, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.volume = volume
        self.function = function
        self.slices = volume.slices
        self.device = volume.device

    def slabs(self, part: slice) -> Iterator[Slab]:
        """See `SlicedVolume`."""
        for slab in self.volume.slabs(part):
            yield Slab(slab.where, self.function(slab.values))


def pieces(part: slice, values_per_slice: int, device: torch.device) -> Iterator[slice]:
    """A range of slices cut into slabs, of at least one slice each."""
    values = VALUES_PER_SLAB_CPU if device.type == "cpu" else VALUES_PER_SLAB_GPU
    thickness = max(1, values // max(1, values_per_slice))
    for start in range(part.start, part.stop, thickness):
        yield slice(start, min(start + thickness, part.stop))


def across(axis: int, part: slice, shape: Sequence[int]) -> Where:
    """Where some slices across an axis lie in a volume of this spatial shape."""
    return tuple(part if other == axis else slice(0, size) for other, size in enumerate(shape))


def for_each_slab(volume: SlicedVolume, work: Callable[[Slab], None]) -> None:
    """Calls `work` for every slab of a volume; on a CPU in as many threads as torch would use for one operation.

    Within a thread torch computes with that thread alone. Otherwise each of the many small operations would wait
    until all threads have come to its end, which takes up to forty times as long where other programs run beside.

    Args:
        volume: any.
        work: must not mind the order, and write only to where its slab is.
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
        torch.set_num_threads(before)  # the workers' calls set what threads begin with that come later


def compute_alone() -> None:
    """Lets torch use the calling thread only for what that thread computes."""
    torch.get_num_threads()  # torch sets a thread up when it first asks; later that would undo the next line
    torch.set_num_threads(1)


def assembled(volume: SlicedVolume, shape: Sequence[int]) -> torch.Tensor:
    """The whole of a volume (C, *spatial) of this shape, float32."""
    whole = torch.empty(tuple(shape), device=volume.device)

    def insert(slab: Slab) -> None:
        all_channels = (slice(None), *slab.where)
        whole[all_channels] = slab.values

    for_each_slab(volume, insert)
    return whole
