"""A case of the cross-validation, cropped to what post-processing can change or be judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from nnunet_ext.boxes import bounding_box
from nnunet_ext.evaluation.overlap_counts import joint_histogram, overlap_counts
from nnunet_ext.labels import LabelScheme, Region
from nnunet_ext.postprocessing.step import SegmentedCase

LOWEST_PROBABILITY = 0.3  # from which a voxel can become foreground, see `hysteresis.LOW`


@dataclass(frozen=True)
class CrossValidatedCase:
    """A case that its members were not trained on.

    Attributes:
        case: its name.
        patient: patient that it belongs to.
        fold: fold whose members predicted it.
        segmented: the prediction.
        truth: (*spatial), the label map.
    """

    case: str
    patient: str
    fold: str
    segmented: SegmentedCase
    truth: np.ndarray

    def dice(self, labels: np.ndarray, scheme: LabelScheme) -> float:
        """Mean Dice of a label map (*spatial) over all structures; one that both leave out counts as 1.

        So that removing a false structure is a gain, as it is where Dice is not defined for what both leave out.
        """
        histogram = joint_histogram(self.truth, labels)
        return fmean(structure_dice(histogram, region, scheme.ignore_label) for region in scheme.structures.values())


def structure_dice(histogram: np.ndarray, region: Region, ignore_label: int | None) -> float:
    """Dice of a structure; 1 if truth and prediction leave it out."""
    counts = overlap_counts(histogram, region, ignore_label=ignore_label)
    return 1.0 if counts.absent else counts.dice


def cropped_case(
    segmented: SegmentedCase, truth: np.ndarray, scheme: LabelScheme, folder: Path, *, names: Mapping[str, str]
) -> CrossValidatedCase:
    """Crops a case to truth, prediction and voxels that could become foreground.

    Args:
        segmented: the prediction.
        truth: (*spatial), the label map.
        scheme: how outputs are interpreted.
        folder: gets the probabilities as a file, which is mapped: those of all cases need not fit into memory.
        names: `case`, `patient` and `fold`.
    """
    needed = (segmented.labels > 0) | (truth > 0)
    probabilities = segmented.probabilities
    if probabilities is not None:
        foreground = probabilities if scheme.regions else probabilities[1:]
        needed |= (foreground >= LOWEST_PROBABILITY).any(axis=0)
    # with a margin, so that only axes of length 1 in the image have length 1 here
    box = bounding_box(needed, margin=1) or tuple(slice(0, 1) for _ in truth.shape)
    if probabilities is not None:
        file = folder / f"{names['case']}.npy"
        in_box = (slice(None), *box)
        np.save(file, probabilities[in_box])
        probabilities = np.load(file, mmap_mode="r")
    cropped = SegmentedCase(np.ascontiguousarray(segmented.labels[box]), segmented.spacing_mm, probabilities)
    return CrossValidatedCase(**names, segmented=cropped, truth=np.ascontiguousarray(truth[box]))
