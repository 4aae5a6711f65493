"""How much the members' own segmentations agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

Region = tuple[int, ...]  # the labels that make it up


@dataclass(frozen=True)
class CroppedLabels:
    """A label map cut to the box of its foreground: small enough to keep one a member.

    Attributes:
        start: first corner of the box.
        labels: within the box; of size 0 where there is no foreground.
    """

    start: tuple[int, ...]
    labels: np.ndarray


def crop_to_foreground(labels: np.ndarray) -> CroppedLabels:
    """Cuts a label map to the box of its nonzero voxels."""
    ranges = []
    for axis in range(labels.ndim):
        others = tuple(other for other in range(labels.ndim) if other != axis)
        occupied = np.flatnonzero(labels.any(axis=others))
        if occupied.size == 0:
            return CroppedLabels((0,) * labels.ndim, np.zeros((0,) * labels.ndim, labels.dtype))
        ranges.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return CroppedLabels(tuple(part.start for part in ranges), labels[tuple(ranges)].copy())


def region_sizes(member: CroppedLabels, regions: Sequence[Region]) -> np.ndarray:
    """(R): voxels of every region."""
    return np.array([np.isin(member.labels, region).sum() for region in regions], dtype=np.int64)


def intersection_sizes(first: CroppedLabels, second: CroppedLabels, regions: Sequence[Region]) -> np.ndarray:
    """(R): voxels that two members both give to a region."""
    overlap_first, overlap_second = _overlap(first, second)
    return np.array(
        [(np.isin(overlap_first, region) & np.isin(overlap_second, region)).sum() for region in regions],
        dtype=np.int64,
    )


def pairwise_dice(members: Sequence[CroppedLabels], regions: Sequence[Region]) -> float:
    """Mean over all pairs of members of the mean Dice over the regions.

    A region that both of a pair leave out does not count for the pair; a pair without any region has Dice 1. Note
    that members which are all empty therefore read 1, "most confident": flag that.

    Returns:
        NaN for fewer than two members.
    """
    if len(members) < 2:
        return float("nan")
    sizes = [region_sizes(member, regions) for member in members]
    return float(
        np.mean(
            [
                _mean_dice(intersection_sizes(members[i], members[j], regions), sizes[i] + sizes[j])
                for i, j in combinations(range(len(members)), 2)
            ]
        )
    )


def _mean_dice(intersections: np.ndarray, size_sums: np.ndarray) -> float:
    present = size_sums > 0
    return float(np.mean(2 * intersections[present] / size_sums[present])) if present.any() else 1.0


def _overlap(first: CroppedLabels, second: CroppedLabels) -> tuple[np.ndarray, np.ndarray]:
    start = np.maximum(first.start, second.start)
    stop = np.minimum(
        np.add(first.start, first.labels.shape),
        np.add(second.start, second.labels.shape),
    )
    stop = np.maximum(start, stop)

    def cut(member: CroppedLabels) -> np.ndarray:
        offsets = np.array(member.start)
        return member.labels[tuple(map(slice, start - offsets, stop - offsets))]

    return cut(first), cut(second)
