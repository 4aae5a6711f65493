"""What is told about a case's uncertainty: the maps, and the case's row in the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch

from nnunet_ext.inference.accumulation.agreement import CroppedLabels, overlaps, pairwise_dice
from nnunet_ext.inference.accumulation.moments import Moments, entropy, largest_entropy
from nnunet_ext.inference.accumulation.slabs import Slab, WholeVolume, for_each_slab
from nnunet_ext.labels import Region

# Each map is (*spatial) in [0, 1], from the moments and their predictive entropy, which costs most and is needed
# twice. Entropies are divided by their largest value, ln C.
MAPS: dict[str, Callable[[Moments, torch.Tensor], torch.Tensor]] = {
    "entropy": lambda moments, entropy: entropy / moments.largest_entropy(),
    "mutual_information": lambda moments, entropy: (
        (entropy - moments.expected_entropy()).clamp_min_(0) / moments.largest_entropy()
    ),
    "expected_entropy": lambda moments, _: moments.expected_entropy() / moments.largest_entropy(),
    "variance": lambda moments, _: moments.variance().mean(0) if moments.regions else moments.variance().sum(0),
    "confidence": lambda moments, _: confidence(moments.mean(), regions=moments.regions),
}


def normalised_entropy(mean: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """Entropy of (C, *spatial) probabilities by the largest that there is, (*spatial)."""
    return entropy(mean, regions=regions) / largest_entropy(len(mean), regions=regions)


def confidence(mean: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """Probability of the most likely class; of regions, that of the decision that is least sure. (*spatial)."""
    return torch.maximum(mean, 1 - mean).amin(0) if regions else mean.amax(0)


# Maps that need the mean probabilities only.
MAPS_OF_MEAN: dict[str, Callable[..., torch.Tensor]] = {"entropy": normalised_entropy, "confidence": confidence}


def require_known_maps(names: Iterable[str]) -> None:
    """Refuses a map that does not exist."""
    unknown = sorted(set(names) - set(MAPS))
    if unknown:
        raise ValueError(f"Maps must be of {', '.join(MAPS)}; found {', '.join(unknown)}.")


def uncertainty_maps(moments: Moments, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The maps of these names, (*spatial) float32, in [0, 1] to the last bit."""
    mean = moments.mean()
    maps = {name: np.empty(tuple(mean.shape[1:]), dtype=np.float32) for name in names}

    def fill(slab: Slab) -> None:
        part = moments.part(slab.where)
        predictive_entropy = part.predictive_entropy()
        for name, values in maps.items():
            values[slab.where] = as_map(MAPS[name](part, predictive_entropy))

    for_each_slab(WholeVolume(mean), fill)
    return maps


def calibrated_maps(probabilities: torch.Tensor, names: Sequence[str], *, regions: bool) -> dict[str, np.ndarray]:
    """Those of these maps that show the mean probabilities, for calibrated ones; (*spatial) float32.

    The other maps tell of the members, whose probabilities nobody calibrated.
    """
    return {
        name: as_map(MAPS_OF_MEAN[name](probabilities, regions=regions)) for name in names if name in MAPS_OF_MEAN
    }


def as_map(values: torch.Tensor) -> np.ndarray:
    """In [0, 1] to the last bit, (*spatial) float32."""
    return values.clamp_(0, 1).cpu().numpy().astype(np.float32, copy=False)


def case_row(
    *,
    segmentation: np.ndarray,
    entropy: np.ndarray,
    mutual_information: np.ndarray,
    members: Sequence[CroppedLabels],
    regions: Mapping[str, Region],
    image_voxels: int,
    voxel_volume_ml: float,
) -> dict[str, object]:
    """The case's row of `cases.csv`, without its name.

    Args:
        segmentation: (*box), the part of the image that was predicted; outside is background for certain.
        entropy: (*box), in [0, 1].
        mutual_information: (*box), in [0, 1].
        members: the members' own segmentations.
        regions: name to labels.
        image_voxels: of the whole image: means of entropy and mutual information run over all of it.
        voxel_volume_ml: for volumes.

    Returns:
        `foreground_entropy` is the mean over the segmentation's foreground, over the whole image where that is
        empty. `volume_cv_<label>` is standard deviation by mean of the members' volumes; NaN where all are 0 or
        there is one member.
    """
    foreground = segmentation > 0
    mean_entropy = float(entropy.sum(dtype=np.float64) / image_voxels)
    overlap = overlaps(members, list(regions.values()))  # (R, M, M)
    row: dict[str, object] = {
        "members": len(members),
        "mean_entropy": mean_entropy,
        "foreground_entropy": float(entropy[foreground].mean(dtype=np.float64)) if foreground.any() else mean_entropy,
        "mutual_information": float(mutual_information.sum(dtype=np.float64) / image_voxels),
        "pairwise_dice": pairwise_dice(overlap),
    }
    voxels = np.bincount(segmentation.ravel(), minlength=1 + max(map(max, regions.values()), default=0))
    for (name, labels), region_overlap in zip(regions.items(), overlap, strict=True):
        row[f"volume_ml_{name}"] = float(voxels[list(labels)].sum() * voxel_volume_ml)
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
