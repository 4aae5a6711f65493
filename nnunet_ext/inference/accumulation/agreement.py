"""How much the members' own segmentations agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_ext.labels import Region


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


def overlaps(members: Sequence[CroppedLabels], regions: Sequence[Region]) -> np.ndarray:
    """(R, M, M): how many voxels each two members both give to a region; on the diagonal the members' own sizes.

    Where all members agree, and that is nearly everywhere, voxels are counted once for all pairs.
    """
    counts = np.zeros((len(regions), len(members), len(members)), dtype=np.int64)
    largest = max((label for region in regions for label in region), default=0)
    in_region = np.zeros((len(regions), max(largest, largest_label(members)) + 1), dtype=bool)  # (R, labels)
    for row, region in zip(in_region, regions, strict=True):
        row[list(region)] = True
    for labels in stacked(members):  # (M, voxels)
        agreed = (labels[1:] == labels[0]).all(0)
        same = np.bincount(labels[0] if agreed.all() else labels[0, agreed], minlength=in_region.shape[1])
        counts += (in_region @ same)[:, None, None]
        if agreed.all():
            continue
        disputed = labels[:, ~agreed]
        for count, row in zip(counts, in_region, strict=True):
            inside = row[disputed].astype(np.float32)  # exact: a plane has less than 2^24 voxels
            count += (inside @ inside.T).astype(np.int64)
    return counts


def largest_label(members: Sequence[CroppedLabels]) -> int:
    """0 where nobody found anything."""
    return max((int(member.labels.max()) for member in members if member.labels.size), default=0)


def stacked(members: Sequence[CroppedLabels]) -> Iterator[np.ndarray]:
    """The members' label maps side by side, one plane of the box that holds all of them at a time: (M, voxels)."""
    found = [member for member in members if member.labels.size]
    if not found:
        return
    start = np.min([member.start for member in found], axis=0)
    stop = np.max([np.add(member.start, member.labels.shape) for member in found], axis=0)
    plane_shape = tuple(stop[1:] - start[1:])
    for plane in range(start[0], stop[0]):
        planes = np.zeros((len(members), *plane_shape), dtype=found[0].labels.dtype)
        for target, member in zip(planes, members, strict=True):
            row = plane - member.start[0]
            if member.labels.size and 0 <= row < len(member.labels):
                corner = np.subtract(member.start[1:], start[1:])
                target[tuple(slice(c, c + n) for c, n in zip(corner, member.labels.shape[1:], strict=True))] = (
                    member.labels[row]
                )
        yield planes.reshape(len(members), -1)  # (M, voxels of the plane)


def pairwise_dice(overlap: np.ndarray) -> float:
    """Mean over all pairs of members of the mean Dice over the regions.

    A region that both of a pair leave out does not count for the pair; a pair without any region has Dice 1. Note
    that members which are all empty therefore read 1, "most confident": flag that.

    Args:
        overlap: (R, M, M), see `overlaps`.

    Returns:
        NaN for fewer than two members.
    """
    members = overlap.shape[1]
    if members < 2:
        return float("nan")
    first, second = np.triu_indices(members, k=1)
    sizes = np.diagonal(overlap, axis1=1, axis2=2)  # (R, M)
    size_sums = sizes[:, first] + sizes[:, second]  # (R, pairs)
    present = size_sums > 0
    dices = np.divide(2 * overlap[:, first, second], size_sums, out=np.zeros(size_sums.shape), where=present)
    regions_present = present.sum(0)
    means = np.divide(dices.sum(0), regions_present, out=np.ones(len(first)), where=regions_present > 0)
    return float(means.mean())
