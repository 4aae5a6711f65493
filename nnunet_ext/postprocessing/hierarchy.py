"""Makes nested regions nested again: enhancing tumour within tumour core within whole tumour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nnunet_ext.labels import Region
from nnunet_ext.postprocessing.step import PostProcessingError, SegmentedCase
from nnunet_ext.postprocessing.structures import Anatomy

Direction = Literal["up", "down"]
DIRECTIONS: tuple[Direction, ...] = ("up", "down")
ALL_REGIONS = "all regions"


@dataclass(frozen=True)
class Hierarchy:
    """Closes the regions' probabilities upward or downward and decides again where that changes the label.

    Voxels that an earlier step changed stay.

    Attributes:
        structure: its name in reports.
        direction: "up": a region has everything that its inner regions have; "down": an inner region has nothing
            that an outer one lacks.
        regions: the labels of each region, in the order of the outputs.
        paint: the label of each region, painted in this order.

    Raises:
        PostProcessingError: if the direction is another one.
    """

    structure: str
    direction: Direction
    regions: tuple[Region, ...]
    paint: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise PostProcessingError(f"The direction of a hierarchy must be up or down; found {self.direction!r}.")

    def __call__(self, case: SegmentedCase) -> np.ndarray:
        """The labels of the nested regions."""
        probabilities = case.required_probabilities()
        before = painted(probabilities > 0.5, self.paint)
        after = painted(closed(probabilities, self.regions, self.direction) > 0.5, self.paint)
        changed = (before != after) & (case.labels == before)
        return np.where(changed, after, case.labels).astype(case.labels.dtype)


def closed(values: np.ndarray, regions: Sequence[Region], direction: Direction) -> np.ndarray:
    """Probabilities or boolean masks of regions, made to agree with which region contains which.

    Since a threshold keeps the order of numbers, masks of closed probabilities equal closed masks.

    Args:
        values: (R, *spatial), probabilities or masks.
        regions: the labels of each region; one contains another if it has all of its labels.
        direction: "up" takes the maximum over a region and its inner ones, "down" the minimum over a region and its
            outer ones.

    Returns:
        (R, *spatial) of the same type.
    """
    result = np.empty_like(values)
    for number, region in enumerate(regions):
        related = [
            other
            for other, labels in enumerate(regions)
            if (set(labels) <= set(region) if direction == "up" else set(labels) >= set(region))
        ]
        combine = np.maximum if direction == "up" else np.minimum
        result[number] = combine.reduce(values[related], axis=0)
    return result


def painted(masks: np.ndarray, paint: Sequence[int]) -> np.ndarray:
    """The label map (*spatial) of masks (R, *spatial), painted one over the other as nnU-Net does."""
    labels = np.zeros(masks.shape[1:], dtype=np.int64)
    for mask, label in zip(masks, paint, strict=True):
        labels[mask] = label
    return labels


def candidates(anatomy: Anatomy) -> list[tuple[Hierarchy, ...]]:
    """Both directions, if the dataset has nested regions."""
    regions = tuple(one.labels for one in anatomy.structures)
    nested = any(set(one) < set(other) for one in regions for other in regions)
    if not anatomy.regions or not nested:
        return []
    paint = tuple(one.paint for one in anatomy.structures)
    return [(Hierarchy(ALL_REGIONS, direction, regions, paint),) for direction in DIRECTIONS]
