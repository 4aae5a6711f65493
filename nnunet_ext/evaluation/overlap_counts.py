"""Counts of agreeing and differing voxels, from one pass over a pair of label maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_ext.labels import Region


@dataclass(frozen=True)
class OverlapCounts:
    """Voxels of one structure: true and false positives and negatives; ignored voxels are not counted."""

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: OverlapCounts) -> OverlapCounts:
        """The counts of several cases together; `dice` is then pooled over them."""
        return OverlapCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def absent(self) -> bool:
        """Whether neither truth nor prediction has the structure."""
        return not (self.tp or self.fp or self.fn)

    @property
    def dice(self) -> float:
        """2TP/(2TP + FP + FN); NaN if truth and prediction are empty, as in nnU-Net."""
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """TP/(TP + FP + FN); NaN likewise."""
        return _share(self.tp, self.tp + self.fp + self.fn)

    def as_stock(self) -> dict[str, float]:
        """The keys of a structure in nnU-Net's `summary.json`."""
        return {
            "Dice": self.dice,
            "IoU": self.iou,
            "FP": self.fp,
            "TP": self.tp,
            "FN": self.fn,
            "TN": self.tn,
            "n_pred": self.fp + self.tp,
            "n_ref": self.fn + self.tp,
        }


def joint_histogram(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """(L, L) int64: voxels by true label (rows) and predicted label (columns); labels are 0 or more."""
    size = int(max(truth.max(initial=0), prediction.max(initial=0))) + 1
    pairs = truth.astype(np.int64).ravel() * size + prediction.ravel()
    return np.bincount(pairs, minlength=size * size).reshape(size, size)  # (true, predicted)


def overlap_counts(histogram: np.ndarray, region: Region, *, ignore_label: int | None = None) -> OverlapCounts:
    """Counts of a class or region.

    Args:
        histogram: result of `joint_histogram`.
        region: the labels that make it up.
        ignore_label: label of the truth whose voxels do not count; None if there is none.
    """
    counted = np.ones(len(histogram), dtype=bool)
    if ignore_label is not None and ignore_label < len(histogram):
        counted[ignore_label] = False
    inside = np.isin(np.arange(len(histogram)), region)
    rows = histogram[counted]
    true, predicted = inside[counted], inside
    return OverlapCounts(
        tp=int(rows[true][:, predicted].sum()),
        fp=int(rows[~true][:, predicted].sum()),
        fn=int(rows[true][:, ~predicted].sum()),
        tn=int(rows[~true][:, ~predicted].sum()),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
