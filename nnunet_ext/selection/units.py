"""What can be annotated by itself: a whole case, a slice of it, or a patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

Box = tuple[tuple[int, int], ...]  # first voxel and the one behind the last along each axis, on the reader's axes


@dataclass(frozen=True)
class Unit:
    """A part of a case that is annotated or not.

    Attributes:
        case: its name.
        box: its voxels.
        score: how uncertain the members are in it.
        label_scores: label that is predicted somewhere in it to how uncertain they are there.
        slice: index along the stack; None if it is no slice.
    """

    case: str
    box: Box
    score: float
    label_scores: Mapping[int, float] = field(default_factory=dict)
    slice: int | None = None


@dataclass(frozen=True)
class Choice:
    """A unit that a strategy chose.

    Attributes:
        unit: what to annotate.
        label: the predicted label that it was chosen for; None if it was chosen among all units.
    """

    unit: Unit
    label: int | None = None


def whole(shape: Sequence[int]) -> Box:
    """The box of a whole image."""
    return tuple((0, size) for size in shape)


def slice_boxes(shape: Sequence[int], axis: int) -> list[Box]:
    """The boxes of all slices along an axis."""
    return [
        tuple((index, index + 1) if other == axis else (0, size) for other, size in enumerate(shape))
        for index in range(shape[axis])
    ]


def patch_boxes(shape: Sequence[int], patch_size: Sequence[int]) -> list[Box]:
    """Boxes of patches that overlap by half and reach every voxel; cut off where the image is smaller.

    The last one along each axis is moved back so that it ends with the image.
    """
    ranges = []
    for size, length in zip(shape, patch_size, strict=True):
        last = max(size - length, 0)
        starts = [*range(0, last, max(length // 2, 1)), last]
        ranges.append([(start, min(start + length, size)) for start in starts])
    return [tuple(box) for box in product(*ranges)]


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes of one case have a voxel in common."""
    return all(start < end and begin < stop for (start, stop), (begin, end) in zip(one, other, strict=True))


def inside(box: Box) -> tuple[slice, ...]:
    """The box as an index of an array."""
    return tuple(slice(start, stop) for start, stop in box)
