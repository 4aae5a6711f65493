"""Keeps a component only if it is confident somewhere; may grow it into less confident voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_ext.labels import Region
from nnunet_ext.postprocessing.components import components_of
from nnunet_ext.postprocessing.step import PostProcessingError, SegmentedCase, in_region, relabelled
from nnunet_ext.postprocessing.structures import Anatomy

HIGH = (0.6, 0.7, 0.8, 0.9, 0.95)
LOW = (None, 0.3)


@dataclass(frozen=True)
class Hysteresis:
    """Components of the voxels above a low threshold stay if one of their voxels reaches a high one.

    Attributes:
        structure: its name.
        labels: the labels that make it up.
        paint: label of the voxels that are added.
        beneath: label of the voxels that are removed; only voxels of this label are added.
        output: index of its probability.
        high: probability that a component must reach somewhere.
        low: probability from which voxels belong to a component; None takes the segmentation itself.

    Raises:
        PostProcessingError: if the thresholds are not probabilities, or low is above high.
    """

    structure: str
    labels: Region
    paint: int
    beneath: int
    output: int
    high: float
    low: float | None = None

    def __post_init__(self) -> None:
        low = self.high if self.low is None else self.low
        if not 0 < low <= self.high <= 1:
            raise PostProcessingError(
                f"Thresholds of hysteresis must be above 0 and at most 1, low not above high; found low {self.low} "
                f"and high {self.high}."
            )

    def __call__(self, case: SegmentedCase) -> np.ndarray:
        """The labels after the thresholds."""
        probability = case.required_probabilities()[self.output]
        inside = in_region(case.labels, self.labels)
        reached = inside
        if self.low is not None:
            reached = (probability >= self.low) & (inside | (case.labels == self.beneath))
        found = components_of(reached)
        stays = found.mask(found.touched_by(probability >= self.high))
        without = relabelled(case.labels, inside & ~stays, self.beneath)
        return relabelled(without, stays & ~inside, self.paint)


def candidates(anatomy: Anatomy) -> list[tuple[Hysteresis, ...]]:
    """One family per structure: without a low threshold first."""
    return [
        tuple(
            Hysteresis(one.name, one.labels, one.paint, one.beneath, one.output, high, low)
            for low in LOW
            for high in HIGH
        )
        for one in anatomy.structures
    ]
