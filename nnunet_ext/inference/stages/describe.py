"""What is told about a case's uncertainty: the maps, and the case's row in the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nnunet_ext.evaluation.volume import voxel_volume_ml
from nnunet_ext.inference.accumulation.agreement import CroppedLabels, overlaps, pairwise_dice
from nnunet_ext.inference.accumulation.maps import uncertainty_maps
from nnunet_ext.inference.case_result import CaseResult
from nnunet_ext.labels import Region

MAPS_OF_THE_ROW = ("entropy", "mutual_information")


@dataclass(frozen=True)
class Describe:
    """The stage that adds maps and row.

    Attributes:
        maps: names of the maps that are written.
    """

    maps: Sequence[str]

    def __call__(self, result: CaseResult) -> CaseResult:
        """The result with its maps, those that the row needs among them, and its row."""
        maps = uncertainty_maps(result.moments, list(dict.fromkeys([*self.maps, *MAPS_OF_THE_ROW])))
        image = ImageSize(math.prod(result.frame.shape), voxel_volume_ml(result.frame.properties["spacing"]))
        row = case_row(result.segmentation, maps, result.members, result.structures, image)
        return replace(result, maps=maps, row=row)


@dataclass(frozen=True)
class ImageSize:
    """How large an image is.

    Attributes:
        voxels: of the whole image: means of entropy and mutual information run over all of it.
        voxel_volume_ml: for volumes.
    """

    voxels: int
    voxel_volume_ml: float


def case_row(
    segmentation: np.ndarray,
    maps: Mapping[str, np.ndarray],
    members: Sequence[CroppedLabels],
    regions: Mapping[str, Region],
    image: ImageSize,
) -> dict[str, object]:
    """The case's row of `cases.csv`, without its name.

    Args:
        segmentation: (*box), the part of the image that was predicted; outside is background for certain.
        maps: "entropy" and "mutual_information", (*box) in [0, 1].
        members: the members' own segmentations.
        regions: name to labels.
        image: its size.

    Returns:
        `foreground_entropy` is the mean over the segmentation's foreground, over the whole image where that is
        empty. `mutual_information` and `pairwise_dice` are NaN of one member, which has nobody to disagree with: 0
        and 1 would read as certain. `volume_cv_<label>` is standard deviation by mean of the members' volumes; NaN
        where all are 0 or there is one member.
    """
    entropy, mutual_information = (maps[name] for name in MAPS_OF_THE_ROW)
    foreground = segmentation > 0
    mean_entropy = float(entropy.sum(dtype=np.float64) / image.voxels)
    mean_information = float(mutual_information.sum(dtype=np.float64) / image.voxels)
    overlap = overlaps(members, list(regions.values()))  # (R, M, M)
    row: dict[str, object] = {
        "members": len(members),
        "mean_entropy": mean_entropy,
        "foreground_entropy": float(entropy[foreground].mean(dtype=np.float64)) if foreground.any() else mean_entropy,
        "mutual_information": mean_information if len(members) > 1 else float("nan"),
        "pairwise_dice": pairwise_dice(overlap),
    }
    voxels = np.bincount(segmentation.ravel(), minlength=1 + max(map(max, regions.values()), default=0))
    for (name, labels), region_overlap in zip(regions.items(), overlap, strict=True):
        row[f"volume_ml_{name}"] = float(voxels[list(labels)].sum() * image.voxel_volume_ml)
        row[f"volume_cv_{name}"] = coefficient_of_variation(np.diagonal(region_overlap))
    row["flags"] = flags(foreground, members)
    return row


def coefficient_of_variation(values: np.ndarray) -> float:
    """Standard deviation (of the population) by mean; NaN for one value or a mean of 0."""
    return float(values.std() / values.mean()) if len(values) > 1 and values.mean() > 0 else float("nan")


def flags(foreground: np.ndarray, members: Sequence[CroppedLabels]) -> list[str]:
    """What a person should know before trusting the numbers of the row."""
    found = []
    if not foreground.any():
        found.append("empty_segmentation")
    if len(members) > 1 and not any(member.labels.any() for member in members):
        found.append("all_members_empty")  # their pairwise Dice reads 1, "most confident"
    return found
