"""The stage that describes the uncertainty of a case: its maps, and its row in `cases.csv`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnunet_ext.evaluation.volume import voxel_volume_ml
from nnunet_ext.inference.accumulation.agreement import CroppedLabels, overlaps, pairwise_dice
from nnunet_ext.inference.accumulation.maps import MAPS, MAPS_OF_THE_ROW, uncertainty_maps
from nnunet_ext.inference.case_result import CaseResult
from nnunet_ext.labels import Region


@dataclass(frozen=True)
class Describe:
    """Adds the maps and the row to the result.

    Attributes:
        maps: names of the maps that are written.
    """

    maps: Sequence[str]

    def __call__(self, result: CaseResult) -> CaseResult:
        """The result with its row and its maps, including the maps that only the row needs.

        Raises:
            RuntimeError: if probabilities are NaN, as an overflow in a network makes them.
        """
        wanted = dict.fromkeys([*self.maps, *MAPS_OF_THE_ROW])
        names = [name for name in wanted if name in MAPS and name not in result.maps]
        maps = {**result.maps, **uncertainty_maps(result.moments, names)}
        image = ImageSize(math.prod(result.frame.shape), voxel_volume_ml(result.frame.properties["spacing"]))
        row = case_row(result.segmentation, maps, result.members, result.structures, image)
        if not math.isfinite(row["mean_entropy"]):  # a segmentation from them would look like any other
            raise RuntimeError(
                "Probabilities must be numbers; those of a member are NaN. Predict with --precision fp32; if that "
                "does not help, look for NaN and very large values in checkpoint and image."
            )
        return replace(result, maps=maps, row=row)


@dataclass(frozen=True)
class ImageSize:
    """The size of an image.

    Attributes:
        voxels: number of voxels of the whole image; mean entropy and mutual information are taken over all of them.
        voxel_volume_ml: volume of one voxel in ml.
    """

    voxels: int
    voxel_volume_ml: float


def case_row(
    segmentation: np.ndarray,
    maps: Mapping[str, np.ndarray],
    members: Sequence[CroppedLabels],
    regions: Mapping[str, Region],
    image: ImageSize,
) -> dict[str, Any]:
    """The case's row of `cases.csv`, without its name.

    Args:
        segmentation: (*box), the part of the image that was predicted; everything outside is background.
        maps: "entropy" and "mutual_information", (*box) in [0, 1].
        members: the members' own segmentations.
        regions: name of every foreground class or region to its labels.
        image: the size of the image.

    Returns:
        The columns by name. `foreground_entropy` is the mean over the foreground of the segmentation, or over the
        whole image if the segmentation is empty. `mutual_information` and `pairwise_dice` are NaN with a single
        member: 0 and 1 would read as full agreement. `volume_ml_<label>` is 0 for an empty structure.
        `volume_cv_<label>` is the standard deviation of the members' volumes divided by their mean; NaN if all
        volumes are 0 or there is a single member.
    """
    entropy, mutual_information = (maps[name] for name in MAPS_OF_THE_ROW)
    foreground = segmentation > 0
    mean_entropy = float(entropy.sum(dtype=np.float64) / image.voxels)
    mean_information = float(mutual_information.sum(dtype=np.float64) / image.voxels)
    overlap = overlaps(members, list(regions.values()))  # (R, M, M)
    row: dict[str, Any] = {
        "members": len(members),
        "mean_entropy": mean_entropy,
        "foreground_entropy": float(entropy[foreground].mean(dtype=np.float64)) if foreground.any() else mean_entropy,
        "mutual_information": mean_information if len(members) > 1 else float("nan"),
        "pairwise_dice": pairwise_dice(overlap),
    }
    voxels = label_counts(segmentation, 1 + max(map(max, regions.values()), default=0))
    for (name, labels), region_overlap in zip(regions.items(), overlap, strict=True):
        row[f"volume_ml_{name}"] = float(voxels[list(labels)].sum() * image.voxel_volume_ml)
        row[f"volume_cv_{name}"] = coefficient_of_variation(np.diagonal(region_overlap))
    row["flags"] = flags(foreground, members)
    return row


def label_counts(segmentation: np.ndarray, least: int) -> np.ndarray:
    """Number of voxels of each label, plane by plane: `np.bincount` copies its input as int64."""
    size = max(least, int(segmentation.max(initial=0)) + 1)
    counts = np.zeros(size, np.int64)
    for plane in segmentation:
        counts += np.bincount(plane.ravel(), minlength=size)
    return counts


def coefficient_of_variation(values: np.ndarray) -> float:
    """Population standard deviation divided by the mean; NaN for a single value or a mean of 0."""
    return float(values.std() / values.mean()) if len(values) > 1 and values.mean() > 0 else float("nan")


def flags(foreground: np.ndarray, members: Sequence[CroppedLabels]) -> list[str]:
    """Warnings about the numbers of the row.

    Returns:
        "empty_segmentation" if the ensemble predicts no foreground, "all_members_empty" if none of several members
        does.
    """
    found = []
    if not foreground.any():
        found.append("empty_segmentation")
    if len(members) > 1 and not any(member.labels.any() for member in members):
        found.append("all_members_empty")  # their pairwise Dice is 1, which looks like full agreement
    return found
