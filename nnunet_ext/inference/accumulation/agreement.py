"""How much the members' own segmentations agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_ext.labels import Region


@dataclass(frozen=True)
class CroppedLabels:
    """A label map cropped to the bounding box of its foreground: small enough to keep one per member.

    Attributes:
        start: index of the first voxel of the box along each axis.
        labels: the labels within the box; an array of size 0 if there is no foreground.
    """

    start: tuple[int, ...]
    labels: np.ndarray


def crop_to_foreground(labels: np.ndarray) -> CroppedLabels:
    """Crops a label map to the bounding box of its nonzero voxels."""
    ranges = []
    for axis in range(labels.ndim):
        others = tuple(other for other in range(labels.ndim) if other != axis)
        occupied = np.flatnonzero(labels.any(axis=others))
        if occupied.size == 0:
            return CroppedLabels((0,) * labels.ndim, np.zeros((0,) * labels.ndim, labels.dtype))
        ranges.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return CroppedLabels(tuple(part.start for part in ranges), labels[tuple(ranges)].copy())


def overlaps(members: Sequence[CroppedLabels], regions: Sequence[Region]) -> np.ndarray:
    """Number of voxels that both members of each pair assign to a region, for every region.

    Where all members agree, which is nearly everywhere, voxels are counted once for all pairs.

    Args:
        members: the M members' segmentations.
        regions: the R regions, each a set of labels.

    Returns:
        (R, M, M); the diagonal holds each member's own volume in voxels. All zeros where every member is empty.
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
            inside = row[disputed].astype(np.float32)  # exact: a plane has fewer than 2^24 voxels
            count += (inside @ inside.T).astype(np.int64)
    return counts


def largest_label(members: Sequence[CroppedLabels]) -> int:
    """The largest label that any member predicts; 0 if all are empty."""
    return max((int(member.labels.max()) for member in members if member.labels.size), default=0)


def stacked(members: Sequence[CroppedLabels]) -> Iterator[np.ndarray]:
    """The members' label maps stacked as (M, voxels), plane by plane over the smallest box that holds all of them."""
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
    """Mean Dice over regions, averaged over all pairs of members.

    A region that is empty in both members of a pair is left out of that pair's mean; a pair in which every region is
    empty has a Dice of 1. An ensemble whose members are all empty therefore scores 1, the highest agreement: callers
    should flag it.

    Args:
        overlap: (R, M, M), see `overlaps`.

    Returns:
        A value in [0, 1]; NaN for fewer than two members.
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
