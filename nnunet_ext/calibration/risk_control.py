"""A foreground mask that misses no more of the true foreground, on average, than a chosen share.

Conformal risk control (Angelopoulos et al. 2022, arXiv 2208.02814). The masks {p_foreground >= τ} grow as τ falls
from 0.5 to 0, where they cover the whole image. The risk R of a patient is the false negative rate: true foreground
voxels that the mask misses, divided by all true foreground voxels, pooled over the patient's cases. It never rises
as τ falls. With the mean risk R̂(τ) of n calibration patients, the threshold is the largest τ with

    (n R̂(τ) + 1) / (n + 1) <= α.

Then the *expected* risk of a new patient is at most α. The guarantee is marginal: it holds on average over
patients, new ones and those in calibration, not for one patient or for a subgroup. It assumes that the new patient is
exchangeable with those in calibration. Another scanner, hospital, protocol or disease breaks it, as does a model that
was trained on the calibration patients, or a model other than the one that was calibrated; nothing in the numbers
shows that this happened. Frames of one patient do not count as patients: pool them.

`p_foreground` is what `foreground_probability` gives; at 0.5 the mask of regions is the union of their masks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_ext.evaluation.counted_voxels import ROUNDING

# 0.5 down to 2e-9 in steps of 0.1 of the logit, and 0. Single-precision numbers, so that a voxel is above or below
# them in any precision.
THRESHOLDS = np.r_[1 / (1 + np.exp(np.arange(201) / 10)), 0].astype(np.float32)


def foreground_probability(probabilities: np.ndarray, *, regions: bool) -> np.ndarray:
    """The sum over the foreground classes, or the largest of the regions' probabilities, (*spatial).

    One minus the background's probability is that sum in theory only: in single precision it has no values between 0
    and 6e-8.

    Args:
        probabilities: (C, *spatial), background first, or (R, *spatial).
        regions: which of the two.

    Raises:
        ValueError: if there is no foreground class.
    """
    if len(probabilities) < (1 if regions else 2):
        raise ValueError(
            f"Probabilities must have a foreground class besides the background; found {len(probabilities)} outputs."
        )
    return probabilities.max(axis=0) if regions else probabilities[1:].sum(axis=0)


@dataclass(frozen=True, eq=False)
class MissCounts:
    """True foreground voxels, counted by the first mask that includes them.

    The counts of several cases of a patient add up: `sum(parts, MissCounts.empty())`.

    Attributes:
        counts: (T) int64, voxels that the mask of threshold t, in the order of `THRESHOLDS`, includes and the one
            before does not.
    """

    counts: np.ndarray

    @classmethod
    def empty(cls) -> MissCounts:
        """The counts without any voxel."""
        return cls(np.zeros(len(THRESHOLDS), np.int64))

    @classmethod
    def of(cls, p_foreground: np.ndarray, truth: np.ndarray) -> MissCounts:
        """The counts of one case.

        Args:
            p_foreground: (*spatial), in [0, 1].
            truth: (*spatial), boolean, the true foreground. It excludes voxels with the ignore label.

        Raises:
            TypeError: if the truth is not boolean.
            ValueError: if the shapes differ, or a probability of the true foreground is NaN or outside [0, 1].
        """
        if truth.dtype != bool:
            raise TypeError(f"The true foreground must be a boolean mask; found {truth.dtype}.")
        if truth.shape != p_foreground.shape:
            raise ValueError(
                f"Probabilities and true foreground must have the same shape; found {p_foreground.shape} and "
                f"{truth.shape}."
            )
        values = p_foreground[truth].astype(np.float32, copy=False)
        if values.size and not (values.min() >= -ROUNDING and values.max() <= 1 + ROUNDING):  # also refuses NaN
            raise ValueError(
                f"Probabilities must be in [0, 1]; found {values.min()} to {values.max()}. Apply softmax or sigmoid "
                f"to logits."
            )
        first = len(THRESHOLDS) - np.searchsorted(THRESHOLDS[::-1], np.maximum(values, 0), side="right")
        return cls(np.bincount(first, minlength=len(THRESHOLDS)).astype(np.int64))

    def __add__(self, other: MissCounts) -> MissCounts:
        return MissCounts(self.counts + other.counts)

    @property
    def foreground(self) -> int:
        """Number of true foreground voxels."""
        return int(self.counts.sum())

    def false_negative_rates(self) -> np.ndarray:
        """(T): share of the true foreground that the mask of each threshold misses; NaN without foreground."""
        if not self.foreground:
            return np.full(len(THRESHOLDS), np.nan)
        return 1 - np.cumsum(self.counts) / self.foreground


@dataclass(frozen=True)
class MaskThreshold:
    """The threshold of the mask, and what it is based on.

    Attributes:
        threshold: τ, from 0 to 0.5. At 0 the mask is the whole image: α is too strict for this model.
        alpha: the accepted risk.
        risk: R̂(τ), the mean false negative rate of the calibration patients.
        patients: number of calibration patients with foreground.
        left_out: number of patients without foreground, who have no false negative rate.
    """

    threshold: float
    alpha: float
    risk: float
    patients: int
    left_out: int

    def mask(self, p_foreground: np.ndarray) -> np.ndarray:
        """(*spatial), boolean: voxels at or above the threshold, all of them if it is 0."""
        if self.threshold == 0:
            return np.ones(p_foreground.shape, dtype=bool)
        return p_foreground.astype(np.float32, copy=False) >= np.float32(self.threshold)

    def as_json(self) -> dict[str, Any]:
        """The content that `from_json` takes."""
        return {
            "threshold": self.threshold,
            "alpha": self.alpha,
            "risk": self.risk,
            "patients": self.patients,
            "left_out": self.left_out,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> MaskThreshold:
        """The threshold that `as_json` gave; KeyError if something is missing."""
        return cls(
            threshold=float(content["threshold"]),
            alpha=float(content["alpha"]),
            risk=float(content["risk"]),
            patients=int(content["patients"]),
            left_out=int(content["left_out"]),
        )


def require_alpha(alpha: float, patients: int) -> None:
    """Refuses a risk that the number of patients does not allow.

    Raises:
        ValueError: if alpha is not between 0 and 1, or below 1/(n + 1) with n patients.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1; found {alpha}. Use 0.1.")
    if alpha < 1 / (patients + 1) - 1e-12:
        raise ValueError(
            f"alpha must be at least 1/(n + 1) with n calibration patients; found {alpha} with {patients}. Use "
            f"{math.ceil(1e4 / (patients + 1)) / 1e4:g} or more, or calibrate with {math.ceil(1 / alpha - 1e-9) - 1} "
            f"patients or more."
        )


def fit_mask_threshold(misses_by_patient: Mapping[str, MissCounts], alpha: float) -> MaskThreshold:
    """The largest threshold whose mask keeps the expected false negative rate of a new patient at or below alpha.

    Args:
        misses_by_patient: name to the sum over the patient's cases. Patients without foreground are left out.
        alpha: the accepted risk, for example 0.1. One extra patient is assumed to be missed completely, so n
            patients allow no alpha below 1/(n + 1), at which none of their voxels may be missed.

    Raises:
        ValueError: if alpha is not between 0 and 1, no patient has foreground, or there are too few for alpha.
    """
    rates = [misses.false_negative_rates() for misses in misses_by_patient.values() if misses.foreground]
    patients = len(rates)
    if not patients:
        raise ValueError(
            f"Risk control needs patients with foreground in their truth; found none of {len(misses_by_patient)}."
        )
    require_alpha(alpha, patients)
    risks = np.mean(rates, axis=0)  # (T), never rising, 0 at the end
    bounds = (patients * risks + 1) / (patients + 1)
    chosen = int(np.flatnonzero(bounds <= alpha + 1e-12)[0])  # 1e-12: sums of fractions are off by rounding
    return MaskThreshold(
        threshold=float(THRESHOLDS[chosen]),
        alpha=alpha,
        risk=float(risks[chosen]),
        patients=patients,
        left_out=len(misses_by_patient) - patients,
    )
