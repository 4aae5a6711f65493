"""The uncertainty maps: one value in [0, 1] per voxel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nnunet_ext.inference.accumulation.entropy import entropy, largest_entropy
from nnunet_ext.inference.accumulation.moments import Moments
from nnunet_ext.inference.accumulation.slabs import Slab, SlicedVolume, Where, WholeVolume, for_each_slab

# Each function returns a map (*spatial) in [0, 1]. Its arguments are the moments and their predictive entropy, which
# is expensive and needed twice. Entropies are divided by their largest value: ln C for classes, R ln 2 for regions.
# `tta_variance` and `memory` are not among them: they have sums of their own, see `TransformVariance`, `MemoryMaps`.
MAPS: dict[str, Callable[[Moments, torch.Tensor], torch.Tensor]] = {
    "entropy": lambda moments, entropy: entropy / moments.largest_entropy(),
    "mutual_information": lambda moments, entropy: (
        (entropy - moments.expected_entropy()).clamp_min_(0) / moments.largest_entropy()
    ),
    "expected_entropy": lambda moments, _: moments.expected_entropy() / moments.largest_entropy(),
    "variance": lambda moments, _: summed_variance(moments),
    "confidence": lambda moments, _: confidence(moments.mean(), regions=moments.regions),
}


@dataclass(frozen=True)
class MapFacts:
    """What the reference says about a map.

    Attributes:
        formula: in LaTeX, with the members' probabilities p_m, their weighted mean p̄ and the entropy H.
        values: what it can be.
        reads_as: what it tells about a voxel.
    """

    formula: str
    values: str
    reads_as: str


MAP_FACTS: dict[str, MapFacts] = {
    "entropy": MapFacts(
        r"H(\bar p) / \ln C", "0 to 1", "how uncertain the ensemble is, for any reason; 1: all classes equally likely"
    ),
    "expected_entropy": MapFacts(
        r"\frac{1}{M} \sum_m H(p_m) / \ln C", "0 to `entropy`", "how uncertain the members are, each by itself"
    ),
    "mutual_information": MapFacts(
        r"\left( H(\bar p) - \frac{1}{M} \sum_m H(p_m) \right) / \ln C",
        "0 to `entropy`",
        "how much the members disagree; 0 with one member",
    ),
    "variance": MapFacts(
        r"\sum_c \frac{1}{M} \sum_m (p_{m,c} - \bar p_c)^2",
        "0 to 1",
        "the same, in squared probabilities; below 1 even if all members contradict each other; 0 with one member",
    ),
    "confidence": MapFacts(
        r"\max_c \bar p_c",
        "1/C to 1",
        "probability of the most likely class; large is good, unlike in the other maps",
    ),
    "tta_variance": MapFacts(
        r"\frac{1}{M} \sum_m \sum_c \frac{1}{J} \sum_j (p_{m,j,c} - \bar p_{m,c})^2",
        "0 to 1",
        "how much the J test-time transforms of a member disagree, mean over the members; computed at the network's "
        "resolution",
    ),
    "memory": MapFacts(
        r"U_i, W_i",
        "0 to 1/C; 0 to 1",
        "for each classifier of a [mixture](../methods/streaming.md#the-memory-as-maps): how decided its memory is "
        "(`memory_uncertainty_0` and so on), and its weight (`memory_weight_0` and so on)",
    ),
}


def normalised_entropy(mean: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """Entropy of (C, *spatial) probabilities divided by the largest possible entropy: (*spatial) in [0, 1]."""
    return entropy(mean, regions=regions) / largest_entropy(len(mean), regions=regions)


def summed_variance(moments: Moments) -> torch.Tensor:
    """Variance of the probabilities, (*spatial): summed over classes, or the mean over regions."""
    return moments.variance().mean(0) if moments.regions else moments.variance().sum(0)


def confidence(mean: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """Probability of the most likely class, (*spatial); for regions, of the least certain of their decisions."""
    return torch.maximum(mean, 1 - mean).amin(0) if regions else mean.amax(0)


MAPS_OF_THE_ROW = ("entropy", "mutual_information")  # a case's row is computed from them

# The maps that depend on the mean probabilities only.
MAPS_OF_MEAN: dict[str, Callable[..., torch.Tensor]] = {"entropy": normalised_entropy, "confidence": confidence}

OUTSIDE = {"confidence": 1.0}  # outside the predicted box background is certain: there all other maps are 0


def uncertainty_maps(moments: Moments, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The maps with these names, each (*spatial) float32 and exactly within [0, 1]."""
    if not names:
        return {}
    mean = moments.mean()
    maps = {name: np.empty(tuple(mean.shape[1:]), dtype=np.float32) for name in names}

    def fill(slab: Slab) -> None:
        fill_maps(maps, slab.where, moments.part(slab.where))

    for_each_slab(WholeVolume(mean), fill)
    return maps


def fill_maps(maps: Mapping[str, np.ndarray], where: Where, part: Moments) -> None:
    """Computes some of the voxels of maps.

    Args:
        maps: name to map (*spatial), which is filled in at `where`.
        where: the voxels.
        part: their moments.
    """
    predictive_entropy = part.predictive_entropy()
    for name, values in maps.items():
        values[where] = as_map(MAPS[name](part, predictive_entropy))


def maps_of_mean(
    probabilities: SlicedVolume, shape: Sequence[int], names: Sequence[str], *, regions: bool
) -> dict[str, np.ndarray]:
    """Computes those of the maps that depend on the mean probabilities only, such as calibrated ones.

    The other maps describe the members, whose probabilities are not calibrated.

    Args:
        probabilities: (C, *spatial).
        shape: (*spatial).
        names: names of the maps that are written.
        regions: whether the outputs are overlapping regions.

    Returns:
        Name to map, (*spatial) float32 in [0, 1]; only those of `MAPS_OF_MEAN`.
    """
    maps = {name: np.empty(tuple(shape), dtype=np.float32) for name in names if name in MAPS_OF_MEAN}

    def fill(slab: Slab) -> None:
        for name, values in maps.items():
            values[slab.where] = as_map(MAPS_OF_MEAN[name](slab.values, regions=regions))

    if maps:
        for_each_slab(probabilities, fill)
    return maps


def as_map(values: torch.Tensor) -> np.ndarray:
    """Clips rounding errors, so that the map is exactly within [0, 1]; (*spatial) float32."""
    return values.clamp_(0, 1).cpu().numpy().astype(np.float32, copy=False)
