"""How well probabilities tell how often they are right.

Sign conventions and ranges; smaller is better in all of them, 0 is best:

- expected calibration error (ECE), class-wise ECE, average calibration error (ACE): [0, 1]
- Brier score: [0, 2]
- negative log-likelihood: nats, from 0 to 16.1, where the clipping of the probabilities ends it

All of them are NaN where no voxel counts. Each voxel counts the same; a mask says which ones count, for instance
`mask=labels != ignore_label`. The paper's figures are over the box of the truth's foreground, a volume at a time:
`box = foreground_box(labels)`, then `expected_calibration_error(probabilities[(slice(None), *box)], labels[box])`,
and the mean over the volumes that have such a box.

Classes exclude each other and have one softmax: probabilities (C, *spatial) and a label map (*spatial). Regions
overlap and have a sigmoid each: probabilities (R, *spatial) and masks (R, *spatial). A region with the probability p
is a problem of two classes with the probabilities 1 - p and p; a figure of regions is the mean over them.

Bins have equal width; an edge belongs to the bin above it, and 1 to the last. Voxels are counted in int64 and
probabilities summed in float64: float32 counters stop at 2^24 voxels, fewer than a CT holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nnunet_ext.evaluation.boxes import bounding_box

SMALLEST_PROBABILITY = 1e-7  # of the negative log-likelihood: one voxel at 0 would make it infinite
ROUNDING = 1e-3  # that probabilities may leave [0, 1] by; half precision does
CHUNK = 1 << 18  # voxels at a time, so that temporary arrays stay small whatever the volume


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """What a reliability diagram shows: confidence and accuracy in bins of equal width over [0, 1].

    Those of parts of a volume, or of several volumes, add up: `sum(parts, ReliabilityBins.empty(100))`.

    Attributes:
        counts: (bins) int64, voxels.
        confidence_sums: (bins) float64, sum of the voxels' confidences.
        correct: (bins) int64, voxels that are what they were said to be.
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
            bins: how many.
        """
        index = np.clip((confidence.astype(np.float64) * bins).astype(np.int64), 0, bins - 1)
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
        """(bins): NaN in empty ones."""
        return _mean(self.confidence_sums, self.counts)

    @property
    def accuracy(self) -> np.ndarray:
        """(bins): share of the voxels that are correct; NaN in empty ones."""
        return _mean(self.correct, self.counts)

    @property
    def gaps(self) -> np.ndarray:
        """Distance of accuracy and mean confidence in the bins that are not empty."""
        return np.abs(self.accuracy - self.mean_confidence)[self.counts > 0]

    def expected_error(self) -> float:
        """Mean of the gaps, each weighted with its bin's voxels (Guo et al. 2017, Eq. 3); NaN without a voxel."""
        filled = self.counts[self.counts > 0]
        return float(self.gaps @ (filled / filled.sum())) if filled.size else float("nan")

    def average_error(self) -> float:
        """Mean of the gaps, one a bin that is not empty (Barfoot et al. 2024); NaN without a voxel."""
        return float(self.gaps.mean()) if self.counts.any() else float("nan")


# --- classes ---


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 100, mask: np.ndarray | None = None
) -> float:
    """Mean distance of the most likely class's probability and how often it is right, in [0, 1]; smaller is better.

    ECE = Σ_b (n_b / N) |accuracy_b - confidence_b| (Guo et al. 2017, arXiv 1706.04599, Eq. 3). Of two classes that
    are equally likely the first is taken, as nnU-Net does.

    Args:
        probabilities: (C, *spatial), over classes with background. That they add up to 1 is not checked.
        labels: (*spatial), 0 to C - 1 where the mask is set.
        bins: of equal width over [0, 1].
        mask: (*spatial), boolean, the voxels that count; all by default.

    Returns:
        NaN if no voxel counts.

    Raises:
        TypeError: if the mask is not boolean.
        ValueError: if the shapes do not belong together, there are no bins, a probability is NaN or outside [0, 1],
            or a label that counts is no class.
    """
    return reliability_bins(probabilities, labels, bins=bins, mask=mask).expected_error()


def class_wise_ece(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 100, mask: np.ndarray | None = None
) -> float:
    """Mean over all classes of the calibration error of their own probability, in [0, 1]; smaller is better.

    Bins are those of p_c, and accuracy is how often the class is c (Kull et al. 2019, arXiv 1910.12656). The
    background, and classes that the volume does not hold, count as the others do; their errors are small.

    Arguments, errors and the empty case are those of `expected_calibration_error`.
    """
    return _mean_over(class_reliability_bins(probabilities, labels, bins=bins, mask=mask), "expected_error")


def average_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 20, mask: np.ndarray | None = None
) -> float:
    """The class-wise error with all bins that are not empty counting the same, in [0, 1]; smaller is better.

    ACE = mean over the classes of the mean over their bins (Barfoot et al. 2024, arXiv 2403.06759). Few voxels are
    between 0 and 1, and the ECE hardly sees them; here they weigh as much as the rest. It is not the *adaptive*
    calibration error of the same abbreviation, whose bins hold the same number of voxels.

    Arguments, errors and the empty case are those of `expected_calibration_error`.
    """
    return _mean_over(class_reliability_bins(probabilities, labels, bins=bins, mask=mask), "average_error")


def brier_score(probabilities: np.ndarray, labels: np.ndarray, *, mask: np.ndarray | None = None) -> float:
    """Mean over the voxels of Σ_c (p_c - y_c)^2, in [0, 2]; smaller is better (Brier 1950).

    Arguments, errors and the empty case are those of `expected_calibration_error`.
    """
    total, voxels = 0.0, 0
    for values, truth in _chunks(probabilities, labels, mask):
        voxels += truth.size
        for label, value in enumerate(values):
            total += float(np.square(value.astype(np.float64) - (truth == label)).sum())
    return total / voxels if voxels else float("nan")


def negative_log_likelihood(
    probabilities: np.ndarray, labels: np.ndarray, *, mask: np.ndarray | None = None
) -> float:
    """Mean over the voxels of -ln p of the true class, in nats; smaller is better.

    Probabilities below 1e-7 count as 1e-7, which ends it at 16.1.

    Arguments, errors and the empty case are those of `expected_calibration_error`.
    """
    total, voxels = 0.0, 0
    for values, truth in _chunks(probabilities, labels, mask):
        voxels += truth.size
        total += _log_loss(np.take_along_axis(values, truth[None].astype(np.intp), axis=0))
    return total / voxels if voxels else float("nan")


def reliability_bins(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 100, mask: np.ndarray | None = None
) -> ReliabilityBins:
    """Bins of the most likely class's probability; correct is a voxel of that class.

    Arguments and errors are those of `expected_calibration_error`.
    """
    total = ReliabilityBins.empty(bins)
    for values, truth in _chunks(probabilities, labels, mask):
        confidence, label = _most_likely(values)
        total += ReliabilityBins.of(confidence, label == truth, bins=bins)
    return total


def class_reliability_bins(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 100, mask: np.ndarray | None = None
) -> list[ReliabilityBins]:
    """For each class the bins of its probability; correct is a voxel of the class.

    Arguments and errors are those of `expected_calibration_error`.
    """
    totals = [ReliabilityBins.empty(bins) for _ in probabilities]
    for values, truth in _chunks(probabilities, labels, mask):
        for label, value in enumerate(values):
            totals[label] += ReliabilityBins.of(value, truth == label, bins=bins)
    return totals


# --- regions ---


def region_expected_calibration_error(
    probabilities: np.ndarray, truth: np.ndarray, *, bins: int = 100, mask: np.ndarray | None = None
) -> float:
    """Mean over the regions of the ECE of "inside or not", in [0, 1]; smaller is better.

    Args:
        probabilities: (R, *spatial), each of its own.
        truth: (R, *spatial), boolean: the voxels of each region.
        bins: of equal width over [0, 1]; confidence starts at 0.5, so only the upper half is used.
        mask: (*spatial), boolean, the voxels that count; all by default.

    Returns:
        NaN if no voxel counts.

    Raises:
        TypeError: if the truth or the mask is not boolean.
        ValueError: if the shapes do not belong together, there are no bins, or a probability is NaN or outside
            [0, 1].
    """
    return _mean_over(region_reliability_bins(probabilities, truth, bins=bins, mask=mask), "expected_error")


def region_brier_score(probabilities: np.ndarray, truth: np.ndarray, *, mask: np.ndarray | None = None) -> float:
    """Mean over regions and voxels of 2 (p - y)^2, in [0, 2]; smaller is better.

    The factor is that of two classes, p and 1 - p, so that the range is the one of `brier_score`.

    Arguments, errors and the empty case are those of `region_expected_calibration_error`.
    """
    total, decisions = 0.0, 0
    for values, inside in _region_chunks(probabilities, truth, mask):
        decisions += inside.size
        total += 2 * float(np.square(values.astype(np.float64) - inside).sum())
    return total / decisions if decisions else float("nan")


def region_negative_log_likelihood(
    probabilities: np.ndarray, truth: np.ndarray, *, mask: np.ndarray | None = None
) -> float:
    """Mean over regions and voxels of the binary cross-entropy, in nats, clipped as above; smaller is better.

    Arguments, errors and the empty case are those of `region_expected_calibration_error`.
    """
    total, decisions = 0.0, 0
    for values, inside in _region_chunks(probabilities, truth, mask):
        decisions += inside.size
        total += _log_loss(np.where(inside, values, 1 - values.astype(np.float64)))
    return total / decisions if decisions else float("nan")


def region_reliability_bins(
    probabilities: np.ndarray, truth: np.ndarray, *, bins: int = 100, mask: np.ndarray | None = None
) -> list[ReliabilityBins]:
    """For each region the bins of max(p, 1 - p); correct is a voxel that p > 0.5, nnU-Net's rule, puts right.

    Arguments and errors are those of `region_expected_calibration_error`.
    """
    totals = [ReliabilityBins.empty(bins) for _ in probabilities]
    for values, inside in _region_chunks(probabilities, truth, mask):
        for region, value in enumerate(values):
            confidence = np.maximum(value, 1 - value)
            totals[region] += ReliabilityBins.of(confidence, (value > 0.5) == inside[region], bins=bins)
    return totals


# --- where ---


def foreground_box(
    labels: np.ndarray, *, ignore_label: int | None = None, margin: int = 0
) -> tuple[slice, ...] | None:
    """The smallest box that holds all foreground classes of a label map.

    Args:
        labels: (*spatial), of the truth; foreground is above 0.
        ignore_label: is no foreground.
        margin: voxels to add on each side, as far as the image goes.

    Returns:
        A slice for each axis. None if there is no foreground: such a volume is to be left out, and counted.

    Raises:
        ValueError: if the margin is negative.
    """
    if margin < 0:
        raise ValueError(f"The margin must be 0 voxels or more; found {margin}.")
    foreground = labels > 0 if ignore_label is None else (labels > 0) & (labels != ignore_label)
    return bounding_box(foreground, margin=margin)


# --- parts ---


def _most_likely(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n) and (n): max and argmax over the classes of (C, n), faster than NumPy's across the first axis."""
    confidence, label = values[0], np.zeros(values.shape[1], dtype=np.int64)
    for candidate, value in enumerate(values[1:], start=1):
        np.putmask(label, value > confidence, candidate)
        confidence = np.maximum(confidence, value)
    return confidence, label


def _mean(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)


def _mean_over(diagrams: list[ReliabilityBins], error: str) -> float:
    return float(np.mean([getattr(diagram, error)() for diagram in diagrams]))


def _log_loss(probability_of_truth: np.ndarray) -> float:
    return float(-np.log(np.clip(probability_of_truth.astype(np.float64), SMALLEST_PROBABILITY, 1)).sum())


def _chunks(
    probabilities: np.ndarray, labels: np.ndarray, mask: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(C, n) and (n) of the voxels that count, at most `CHUNK` at a time; checked."""
    if probabilities.ndim < 2 or probabilities.shape[1:] != labels.shape or not len(probabilities):
        raise ValueError(
            f"Probabilities must be (C, *spatial) and labels (*spatial) of the same grid; found "
            f"{probabilities.shape} and {labels.shape}."
        )
    for values, truth in _counted(probabilities, labels[None], mask):
        smallest, largest = truth.min(), truth.max()
        if smallest < 0 or largest >= len(values):
            raise ValueError(
                f"Labels of {len(values)} classes are 0 to {len(values) - 1}; found {smallest} to {largest}. Leave "
                f"out the ignore label with a mask: mask=labels != ignore_label."
            )
        yield values, truth[0]


def _region_chunks(
    probabilities: np.ndarray, truth: np.ndarray, mask: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(R, n) and (R, n) of the voxels that count, at most `CHUNK` at a time; checked."""
    if probabilities.ndim < 2 or probabilities.shape != truth.shape or not len(probabilities):
        raise ValueError(
            f"Probabilities and truth of regions must both be (R, *spatial); found {probabilities.shape} and "
            f"{truth.shape}."
        )
    if truth.dtype != bool:
        raise TypeError(f"The truth of regions must be boolean masks, one each; found {truth.dtype}.")
    yield from _counted(probabilities, truth, mask)


def _counted(
    probabilities: np.ndarray, truth: np.ndarray, mask: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks (C, n) and (T, n) of probabilities and truth without what the mask leaves out; none are empty."""
    spatial = probabilities.shape[1:]
    if mask is not None and mask.dtype != bool:
        raise TypeError(f"The mask must be boolean; found {mask.dtype}.")
    if mask is not None and mask.shape != spatial:
        raise ValueError(f"The mask must have the shape of the image, {spatial}; found {mask.shape}.")
    voxels = int(np.prod(spatial))
    flat = probabilities.reshape(len(probabilities), voxels)
    flat_truth = truth.reshape(len(truth), voxels)
    flat_mask = None if mask is None else mask.reshape(voxels)
    for start in range(0, voxels, CHUNK):
        part = slice(start, start + CHUNK)
        values, known = flat[:, part], flat_truth[:, part]
        if flat_mask is not None:
            values, known = values[:, flat_mask[part]], known[:, flat_mask[part]]
        if not known.size:
            continue
        smallest, largest = values.min(), values.max()
        if not (smallest >= -ROUNDING and largest <= 1 + ROUNDING):  # so that NaN is refused, too
            raise ValueError(
                f"Probabilities must be in [0, 1]; found {smallest} to {largest}. Apply softmax or sigmoid to logits."
            )
        yield values, known
