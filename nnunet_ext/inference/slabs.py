"""Volumes in pieces: what fits into a processor's cache is computed faster, and takes less memory, than the whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

VALUES_PER_SLAB_CPU = 1 << 20
VALUES_PER_SLAB_GPU = 1 << 27  # there the number of calls counts, not the cache


@dataclass(frozen=True)
class Slab:
    """Some slices of a volume.

    Attributes:
        where: over the spatial axes of the volume.
        values: (C, *size of where).
    """

    where: tuple[slice, ...]
    values: torch.Tensor

    def transposed(self, axes: Sequence[int]) -> Slab:
        """The slab of the volume whose spatial axes are these ones of this volume; a view."""
        where = tuple(self.where[axis] for axis in axes)
        return Slab(where, self.values.permute(0, *(axis + 1 for axis in axes)))


def slices_per_slab(values_per_slice: int, device: torch.device) -> int:
    """How many slices to take at a time, at least 1."""
    values = VALUES_PER_SLAB_CPU if device.type == "cpu" else VALUES_PER_SLAB_GPU
    return max(1, values // max(1, values_per_slice))


def across(axis: int, part: slice, shape: Sequence[int]) -> tuple[slice, ...]:
    """Where some slices across an axis lie in a volume of this spatial shape."""
    return tuple(part if other == axis else slice(0, size) for other, size in enumerate(shape))


def slabs_of(volume: torch.Tensor) -> Iterator[Slab]:
    """A volume (C, *spatial) in slabs along its first spatial axis; views."""
    shape = volume.shape[1:]
    if volume.numel() == 0:
        return
    thickness = slices_per_slab(volume.numel() // shape[0], volume.device)
    for start in range(0, shape[0], thickness):
        part = slice(start, min(start + thickness, shape[0]))
        yield Slab(across(0, part, shape), volume[:, part])


def assembled(slabs: Iterable[Slab], shape: Sequence[int], device: torch.device) -> torch.Tensor:
    """The volume (C, *spatial) of this shape that slabs make up, float32."""
    volume = torch.empty(tuple(shape), device=device)
    for slab in slabs:
        all_channels = (slice(None), *slab.where)
        volume[all_channels] = slab.values
    return volume
