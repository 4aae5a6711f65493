"""What a reliability diagram shows: how confident probabilities are, and how often they are right.

Bins have equal width; an edge belongs to the bin above it, and 1 to the last. Voxels are counted in int64 and
probabilities summed in float64: float32 counters stop at 2^24 voxels, fewer than a CT has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_ext.evaluation.counted_voxels import class_chunks, region_chunks


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """What a reliability diagram shows: confidence and accuracy in bins of equal width over [0, 1].

    The bins of parts of a volume, or of several volumes, add up: `sum(parts, ReliabilityBins.empty(100))`.

    Attributes:
        counts: (bins) int64, number of voxels.
        confidence_sums: (bins) float64, sum of the voxels' confidences.
        correct: (bins) int64, number of correct voxels.
    """

    counts: np.ndarray
    confidence_sums: np.ndarray
    correct: np.ndarray

    @classmethod
    def empty(cls, bins: int) -> ReliabilityBins:
        """Bins without a voxel.

        Raises:
            ValueError: if there are no bins.
        """
        if bins < 1:
            raise ValueError(f"There must be at least one bin; found {bins}.")
        return cls(np.zeros(bins, np.int64), np.zeros(bins, np.float64), np.zeros(bins, np.int64))

    @classmethod
    def of(cls, confidence: np.ndarray, correct: np.ndarray, *, bins: int) -> ReliabilityBins:
        """Bins of voxels.

        Args:
            confidence: (N), in [0, 1].
            correct: (N), boolean.
            bins: number of bins.
        """
        index = bin_of(confidence, bins)
        return cls(
            np.bincount(index, minlength=bins).astype(np.int64),
            np.bincount(index, weights=confidence, minlength=bins),
            np.bincount(index[correct], minlength=bins).astype(np.int64),
        )

    def __add__(self, other: ReliabilityBins) -> ReliabilityBins:
        if len(self.counts) != len(other.counts):
            raise ValueError(f"Only equal bins add up; found {len(self.counts)} and {len(other.counts)} of them.")
        return ReliabilityBins(
            self.counts + other.counts,
            self.confidence_sums + other.confidence_sums,
            self.correct + other.correct,
        )

    @property
    def mean_confidence(self) -> np.ndarray:
        """(bins), NaN in empty ones."""
        return _mean(self.confidence_sums, self.counts)

    @property
    def accuracy(self) -> np.ndarray:
        """(bins), share of the voxels that are correct; NaN in empty ones."""
        return _mean(self.correct, self.counts)

    @property
    def gaps(self) -> np.ndarray:
        """Distance between accuracy and mean confidence in the bins that are not empty."""
        return np.abs(self.accuracy - self.mean_confidence)[self.counts > 0]

    def merged(self, most: int) -> ReliabilityBins:
        """Neighbouring bins put together until there are at most so many; as many go into each, so their edges stay.

        Args:
            most: at least 1.
        """
        count = len(self.counts)
        together = next(size for size in range(1, count + 1) if count % size == 0 and count // size <= most)
        return ReliabilityBins(
            self.counts.reshape(-1, together).sum(axis=1),  # (bins // together)
            self.confidence_sums.reshape(-1, together).sum(axis=1),
            self.correct.reshape(-1, together).sum(axis=1),
        )

    def expected_error(self) -> float:
        """Mean of the gaps, weighted by the voxels of each bin (Guo et al. 2017, Eq. 3); NaN without a voxel."""
        filled = self.counts[self.counts > 0]
        return float(self.gaps @ (filled / filled.sum())) if filled.size else float("nan")

    def average_error(self) -> float:
        """Mean of the gaps over the bins that are not empty (Barfoot et al. 2024); NaN without a voxel."""
        return float(self.gaps.mean()) if self.counts.any() else float("nan")


def bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """(N), 0 to bins - 1: the bin of each confidence.

    The edges are rounded to the precision of the confidences. Otherwise 0.29 in 32 bits, which is a little less than
    0.29, would fall below that edge.

    Args:
        confidence: (N), floating point, in [0, 1].
        bins: number of bins.
    """
    edges = (np.arange(bins + 1) / bins).astype(confidence.dtype)
    index = np.clip((confidence.astype(np.float64) * bins).astype(np.int64), 0, bins - 1)
    index += confidence >= edges[index + 1]
    index -= confidence < edges[np.minimum(index, bins - 1)]
    return np.clip(index, 0, bins - 1)


def reliability_bins(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 100, mask: np.ndarray | None = None
) -> ReliabilityBins:
    """Bins of the most likely class's probability; a voxel is correct if it belongs to that class.

    Arguments and errors are those of `expected_calibration_error`.
    """
    total = ReliabilityBins.empty(bins)
    for values, truth in class_chunks(probabilities, labels, mask):
        confidence, label = _most_likely(values)
        total += ReliabilityBins.of(confidence, label == truth, bins=bins)
    return total


def class_reliability_bins(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 100, mask: np.ndarray | None = None
) -> list[ReliabilityBins]:
    """For each class the bins of its probability; a voxel is correct if it belongs to the class.

    Arguments and errors are those of `expected_calibration_error`.
    """
    totals = [ReliabilityBins.empty(bins) for _ in probabilities]
    for values, truth in class_chunks(probabilities, labels, mask):
        for label, value in enumerate(values):
            totals[label] += ReliabilityBins.of(value, truth == label, bins=bins)
    return totals


def region_reliability_bins(
    probabilities: np.ndarray, truth: np.ndarray, *, bins: int = 100, mask: np.ndarray | None = None
) -> list[ReliabilityBins]:
    """For each region the bins of max(p, 1 - p); a voxel is correct if p > 0.5, nnU-Net's rule, is right.

    Arguments and errors are those of `region_expected_calibration_error`.
    """
    totals = [ReliabilityBins.empty(bins) for _ in probabilities]
    for values, inside in region_chunks(probabilities, truth, mask):
        for region, value in enumerate(values):
            confidence = np.maximum(value, 1 - value)
            totals[region] += ReliabilityBins.of(confidence, (value > 0.5) == inside[region], bins=bins)
    return totals


def _most_likely(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n) and (n): max and argmax over the classes of (C, n), faster than NumPy's across the first axis."""
    confidence, label = values[0], np.zeros(values.shape[1], dtype=np.int64)
    for candidate, value in enumerate(values[1:], start=1):
        np.putmask(label, value > confidence, candidate)
        confidence = np.maximum(confidence, value)
    return confidence, label


def _mean(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
