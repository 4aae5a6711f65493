"""CarveMix: a lesion with its surroundings, cut out of one image to replace what another has there.

Zhang et al., MICCAI 2021 (arXiv 2108.06883) and its released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nnunet_ext.boxes import bounding_box
from nnunet_ext.distance_maps import signed_distance

Law = Literal["uniform", "mixture"]


@dataclass(frozen=True)
class Carving:
    """What is cut out of an image.

    Attributes:
        begin: index of the first voxel of its box along each axis.
        mask: (z, y, x), boolean: the voxels of the box that are taken.
    """

    begin: tuple[int, ...]
    mask: np.ndarray

    @property
    def box(self) -> tuple[slice, ...]:
        """Its box in the image."""
        return tuple(slice(first, first + length) for first, length in zip(self.begin, self.mask.shape, strict=True))


def carving_of(
    lesions: np.ndarray, spacing_mm: Sequence[float], random: np.random.RandomState, law: Law = "uniform"
) -> Carving | None:
    """Where the signed distance to the lesions is below a random threshold t.

    With D their signed distance and m = |min D|, t is uniform between -m / 2, a core of the lesions, and m, as far
    around them as they are thick.

    Args:
        lesions: (z, y, x), boolean.
        spacing_mm: along the axes.
        random: where t is drawn.
        law: "uniform" as in the released code; "mixture" draws from (-m / 2, 0) and (0, m) equally often, as the
            paper reads.

    Returns:
        None if there are no lesions, or nothing lies below t, as of lesions one voxel thick.
    """
    box = bounding_box(lesions)
    if box is None or lesions.all():
        return None
    # with a frame without lesions: outside of the image is outside of them
    thickness = max(-signed_distance(np.pad(lesions[box], 1), spacing_mm).min(), 0.0)
    threshold = drawn_threshold(thickness, random, law)
    steps = [int(np.ceil(max(threshold, 0) * min(spacing_mm) / spacing)) + 1 for spacing in spacing_mm]
    begin = tuple(max(part.start - step, 0) for part, step in zip(box, steps, strict=True))
    end = tuple(part.stop + step for part, step in zip(box, steps, strict=True))
    around = tuple(slice(*ends) for ends in zip(begin, end, strict=True))
    mask = signed_distance(lesions[around], spacing_mm) < threshold
    return Carving(begin, mask) if mask.any() and not mask.all() else None


def drawn_threshold(thickness: float, random: np.random.RandomState, law: Law) -> float:
    """t of `carving_of`."""
    if law == "uniform":
        return float(random.uniform(-thickness / 2, thickness))
    return float(random.uniform(-thickness / 2, 0) if random.uniform() < 0.5 else random.uniform(0, thickness))


class Overlaid:
    """An array with a part of another one over it, read only where it is indexed.

    Args:
        base: (channels, z, y, x), an array or one of blosc2's, which reads from the disk when it is indexed.
        values: (channels, *box), what lies over it.
        mask: (*box), boolean: where.
        begin: index of the box's first voxel in `base`; the box may reach beyond the array.
    """

    def __init__(self, base: np.ndarray, values: np.ndarray, mask: np.ndarray, begin: tuple[int, ...]) -> None:
        self.base = base
        self.values = values
        self.mask = mask
        self.begin = begin
        self.shape = base.shape
        self.dtype = base.dtype

    def __getitem__(self, where: tuple[slice, ...]) -> np.ndarray:
        """A part, given by slices of all axes without steps; all channels."""
        spatial = [slice(*part.indices(length)) for part, length in zip(where[1:], self.shape[1:], strict=True)]
        wanted = (slice(None), *spatial)
        result = np.array(self.base[wanted])
        target, source = [], []
        for part, first, length in zip(spatial, self.begin, self.mask.shape, strict=True):
            begin, end = max(part.start, first), min(part.stop, first + length)
            if begin >= end:
                return result
            target.append(slice(begin - part.start, end - part.start))
            source.append(slice(begin - first, end - first))
        over, under = (slice(None), *source), (slice(None), *target)
        result[under] = np.where(self.mask[tuple(source)], self.values[over], result[under])
        return result
