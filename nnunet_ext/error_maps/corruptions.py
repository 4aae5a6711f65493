"""Synthetic errors: a true segmentation, made wrong in ways that networks are wrong.

Every corruption takes labels (z, y, x), spacing in mm, the axis of the stack and a generator, and returns new labels.
It may leave the labels as they are, where they have nothing to corrupt.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

Labels = np.ndarray


@dataclass(frozen=True)
class Grid:
    """The grid of a segmentation.

    Attributes:
        spacing_mm: voxel spacing along its axes.
        stack_axis: along which its slices are stacked.
    """

    spacing_mm: tuple[float, ...]
    stack_axis: int

    @property
    def finest_mm(self) -> float:
        """The smallest spacing: strengths are multiples of it, so that thick slices stay where they are."""
        return min(self.spacing_mm)


def dilation(labels: Labels, grid: Grid, generator: np.random.Generator) -> Labels:
    """One label grows by 1 to 4 of the finest voxels, over background and other labels."""
    label = _one_label(labels, generator)
    distance_mm = ndimage.distance_transform_edt(labels != label, sampling=grid.spacing_mm)
    reach_mm = generator.integers(1, 5) * grid.finest_mm
    return np.where(distance_mm <= reach_mm, np.array(label, labels.dtype), labels)


def erosion(labels: Labels, grid: Grid, generator: np.random.Generator) -> Labels:
    """One label loses 1 to 4 of the finest voxels along its border to whatever is nearest."""
    own = labels == _one_label(labels, generator)
    reach_mm = generator.integers(1, 5) * grid.finest_mm
    if own.all():
        return labels
    distance_mm, nearest = ndimage.distance_transform_edt(own, sampling=grid.spacing_mm, return_indices=True)
    return np.where(own & (distance_mm <= reach_mm), labels[tuple(nearest)], labels)


def shift(labels: Labels, grid: Grid, generator: np.random.Generator) -> Labels:
    """The whole segmentation moves by 2 to 6 of the finest voxels, in a random direction."""
    direction = generator.normal(size=labels.ndim)
    length_mm = generator.uniform(2, 6) * grid.finest_mm
    steps = np.rint(length_mm * direction / np.linalg.norm(direction) / np.array(grid.spacing_mm)).astype(int)
    return ndimage.shift(labels, steps, order=0, mode="constant", cval=0)


def dropped_slices(labels: Labels, grid: Grid, generator: np.random.Generator) -> Labels:
    """One or two neighbouring slices with foreground become empty."""
    axis = grid.stack_axis
    others = tuple(other for other in range(labels.ndim) if other != axis)
    occupied = np.flatnonzero((labels > 0).any(axis=others))
    first = int(generator.choice(occupied))
    result = labels.copy()
    np.moveaxis(result, axis, 0)[first : first + int(generator.integers(1, 3))] = 0
    return result


def dropped_component(labels: Labels, grid: Grid, generator: np.random.Generator) -> Labels:
    """One connected component of a label disappears; corners connect."""
    components, count = ndimage.label(labels == _one_label(labels, generator), structure=np.ones((3,) * labels.ndim))
    return np.where(components == generator.integers(1, count + 1), 0, labels)


CORRUPTIONS: dict[str, Callable[[Labels, Grid, np.random.Generator], Labels]] = {
    "dilation": dilation,
    "erosion": erosion,
    "shift": shift,
    "slices": dropped_slices,
    "component": dropped_component,
}


def corruptions(
    case: str, truth: Labels, grid: Grid, *, count: int, seed: int, ignore_label: int | None = None
) -> Iterator[tuple[str, Labels]]:
    """Some corruptions of a case, of different kinds; the same for the same name, labels and seed.

    Args:
        case: its name.
        truth: (z, y, x), its true labels.
        grid: their grid.
        count: number of kinds, at most those of `CORRUPTIONS`.
        seed: seed of all random choices.
        ignore_label: voxels that have it count as background.

    Yields:
        The kind and the corrupted labels, without those that change nothing. Nothing for a case without foreground.
    """
    labels = truth if ignore_label is None else np.where(truth == ignore_label, 0, truth)
    if not labels.any():
        return
    generator = np.random.default_rng([seed, zlib.crc32(case.encode())])
    kinds: Sequence[str] = generator.permutation(list(CORRUPTIONS))[:count].tolist()
    for kind in kinds:
        corrupted = CORRUPTIONS[kind](labels, grid, generator)
        if not np.array_equal(corrupted, labels):
            yield kind, corrupted


def _one_label(labels: Labels, generator: np.random.Generator) -> int:
    present = np.unique(labels)
    return int(generator.choice(present[present > 0]))
