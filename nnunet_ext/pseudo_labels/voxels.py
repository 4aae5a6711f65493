"""Which voxels of a prediction are believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from nnunet_ext.labels import LabelScheme

BINS = 1000  # of the confidence, so that limits are multiples of 0.001


def confidence_in_label(probabilities: np.ndarray, segmentation: np.ndarray, scheme: LabelScheme) -> np.ndarray:
    """How probable the label of each voxel is; low where post-processing chose another label than the members.

    With regions it is the smallest probability among the decisions on each region, to be inside or outside.

    Args:
        probabilities: (outputs, *spatial), the mean of the members.
        segmentation: (*spatial), labels.
        scheme: what the outputs stand for.

    Returns:
        (*spatial), float32, in [0, 1].
    """
    confidence = np.ones(segmentation.shape, np.float32)
    for probability, labels in zip(probabilities, scheme.outputs().values(), strict=True):
        inside = np.isin(segmentation, labels)
        if scheme.regions:
            np.minimum(confidence, np.where(inside, probability, 1 - probability), out=confidence)
        else:
            confidence[inside] = probability[inside]
    return confidence


@dataclass
class ConfidenceCounts:
    """The confidences of many cases, counted for each label.

    Attributes:
        counts: label to the number of voxels in each of `BINS` bins.
    """

    counts: dict[int, np.ndarray] = field(default_factory=dict)

    def add(self, segmentation: np.ndarray, confidence: np.ndarray) -> None:
        """Counts the voxels of a case, both (*spatial)."""
        bins = np.minimum((confidence.astype(np.float64) * BINS).astype(int), BINS - 1)
        for label in np.unique(segmentation):
            found = np.bincount(bins[segmentation == label], minlength=BINS)
            self.counts[int(label)] = self.counts.get(int(label), 0) + found

    def reached_by(self, label: int, share: float) -> float:
        """The largest limit that at least this share of the voxels of a label reaches; 1 without voxels."""
        if label not in self.counts:
            return 1.0
        reached = self.counts[label][::-1].cumsum()[::-1]  # voxels from each bin upwards
        return float(np.flatnonzero(reached >= share * reached[0])[-1] / BINS)


def confidence_limits(
    counts: ConfidenceCounts,
    labels: Iterable[int],
    *,
    confidence: float,
    label_confidence: Mapping[int, float],
    least_kept: float,
) -> dict[int, float]:
    """The limit of each label.

    Args:
        counts: of all cases.
        labels: all labels, with background.
        confidence: for labels that have no limit of their own.
        label_confidence: limits of single labels.
        least_kept: a common limit is lowered for a label until this share of its voxels reaches it.
    """
    return {
        label: label_confidence.get(label, min(confidence, counts.reached_by(label, least_kept)))
        for label in sorted(labels)
    }


def believed(
    segmentation: np.ndarray,
    confidence: np.ndarray,
    disagreement: np.ndarray | None,
    *,
    limits: Mapping[int, float],
    most_disagreement: float,
) -> np.ndarray:
    """(*spatial), boolean: whether a voxel reaches the limit of its label and members agree about it.

    Args:
        segmentation: (*spatial), labels.
        confidence: (*spatial), see `confidence_in_label`.
        disagreement: (*spatial), in [0, 1]; None if it does not count.
        limits: label to the lowest confidence.
        most_disagreement: the largest disagreement.
    """
    limit_of = np.zeros(max(limits) + 1)
    for label, limit in limits.items():
        limit_of[label] = limit
    kept = confidence >= limit_of[segmentation]
    return kept if disagreement is None else kept & (disagreement <= most_disagreement)


@dataclass(frozen=True)
class CaseShares:
    """What became of the voxels of a case.

    Attributes:
        predicted: label to number of voxels.
        kept: label to number of voxels that are believed.
        confidence: mean confidence of the foreground, or of all voxels where there is none; the weight of the case.
    """

    predicted: Mapping[int, int]
    kept: Mapping[int, int]
    confidence: float


def case_shares(segmentation: np.ndarray, confidence: np.ndarray, kept: np.ndarray) -> CaseShares:
    """Counts the voxels of a case, all (*spatial)."""
    foreground = segmentation > 0
    return CaseShares(
        counted(segmentation),
        counted(segmentation[kept]),
        float(confidence[foreground].mean() if foreground.any() else confidence.mean()),
    )


def counted(labels: np.ndarray) -> dict[int, int]:
    """Label to its number of voxels."""
    values, counts = np.unique(labels, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def ignored_shares(cases: Iterable[CaseShares], labels: Iterable[int]) -> dict[int, float | None]:
    """Label to the share of its voxels that is ignored; None where none was predicted."""
    found = list(cases)
    shares: dict[int, float | None] = {}
    for label in labels:
        predicted = sum(case.predicted.get(label, 0) for case in found)
        kept = sum(case.kept.get(label, 0) for case in found)
        shares[label] = 1 - kept / predicted if predicted else None
    return shares
