"""Temperature scaling of an ensemble's mean probabilities.

A temperature T above 1 makes an over-confident network less confident, one below 1 makes an under-confident network
more confident (Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599). There the logits
are divided by T. An ensemble's mean probabilities have no logits; their logarithm takes that role, which is
equivalent for a single member:

- classes: softmax(ln p_c / T), that is p_c^(1/T) divided by the sum over the classes
- classes with a temperature each: softmax(ln p_c / T_c)
- regions: sigmoid(logit(p_r) / T_r), always with one temperature per region

One temperature for all classes keeps the order of a voxel's classes, and that of a region keeps p > 0.5, so the
most likely label does not change (except for classes that differ by a rounding error). With one temperature per
class another class may become the most likely. So never take the segmentation from calibrated probabilities.

A probability of 0 has no logarithm and counts as the smallest normal number of single precision, 1.2e-38. A region's
1 is whatever rounds to it, 1 - p at most 2^-25. So T far above 1 lifts zeros: at T = 20 one of them has 0.013.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nnunet_ext.evaluation.counted_voxels import ROUNDING

SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)  # a GPU may flush what is smaller to 0
SMALLEST_COMPLEMENT = 2.0**-25  # 1 - p of a p that single precision rounds to 1
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
LARGEST_SLOPE = 1e-5  # of the mean negative log-likelihood over ln T, at its minimum
MOST_SEARCHES = 10  # one is enough, except for small samples with hardly any error


@dataclass(frozen=True)
class Temperature:
    """Temperatures of the network's outputs.

    Attributes:
        values: one per class, background included, or one per region; all equal if there is one for all.
        regions: whether the outputs are overlapping regions with a sigmoid each, not classes with one softmax.

    Raises:
        ValueError: if there are no values, or one is not positive and finite.
    """

    values: tuple[float, ...]
    regions: bool

    def __post_init__(self) -> None:
        if not self.values or not all(0 < value < math.inf for value in self.values):
            raise ValueError(f"Every output needs a temperature above 0; found {list(self.values)}.")

    def apply(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Calibrated probabilities, (C, *spatial) float32; classes add up to 1.

        Needs memory for the result and for two more volumes of one class.

        Args:
            probabilities: (C, *spatial), the ensemble's mean; not modified.

        Raises:
            ValueError: if the numbers of outputs and temperatures differ.
        """
        if len(probabilities) != len(self.values):
            raise ValueError(
                f"Probabilities must have one output for each of the {len(self.values)} temperatures; found "
                f"{len(probabilities)}. Use the calibration of the model that predicts."
            )
        calibrated = torch.empty(probabilities.shape, dtype=torch.float32, device=probabilities.device)
        for row, probability, temperature in zip(calibrated, probabilities, self.values, strict=True):
            row.copy_(probability).clamp_(min=SMALLEST_PROBABILITY).log_()
            if self.regions:
                row.sub_((1 - probability.float()).clamp_(min=SMALLEST_COMPLEMENT).log_())
            row.div_(temperature)
            if self.regions:
                row.sigmoid_()
        if not self.regions:  # softmax in place
            calibrated -= calibrated.amax(0)
            calibrated.exp_()
            calibrated /= calibrated.sum(0)
        return calibrated

    def as_json(self) -> dict[str, Any]:
        """The content that `from_json` takes."""
        return {"values": list(self.values), "regions": self.regions}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Temperature:
        """The temperatures that `as_json` gave; KeyError if something is missing."""
        return cls(tuple(float(value) for value in content["values"]), bool(content["regions"]))


def fit_temperature(
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    per_class: bool,
    regions: bool,
    weights: np.ndarray | None = None,
) -> Temperature:
    """The temperatures with the smallest mean negative log-likelihood of the true labels.

    In 1/T that mean is convex (a log-sum-exp of linear functions), so it has one minimum; the search starts at T = 1
    and the same input gives the same temperatures. The search range is 0.05 to 20. A sample where the most
    likely class is always the true one has its minimum at T → 0: the result is then too sharp to be trusted, and a
    larger sample is needed. The search holds a few arrays of the sample's size in double precision, so pass some
    voxels of each case, not all.

    Args:
        probabilities: (C, N), the ensemble's mean: voxels of calibration cases, not of training cases.
        labels: (N), 0 to C - 1; for regions (R, N), boolean.
        per_class: one temperature per class instead of one for all; a class without a voxel of positive weight takes
            the one for all. No effect for regions, which have one each; a region that contains none or all of the
            voxels of positive weight keeps T = 1.
        regions: what the outputs are, see `Temperature`.
        weights: (N), 0 or more, for example so that all cases have the same weight; all equal by default.

    Raises:
        TypeError: if labels are not integers, or the truth of regions is not boolean.
        ValueError: if the shapes do not match, there is no voxel, a probability is NaN or outside [0, 1], a
            label is not a class, or a weight is negative or not finite or all are 0.
        RuntimeError: if the search fails.
    """
    _require_probabilities(probabilities)
    outputs, voxels = probabilities.shape
    shares = _shares(weights, voxels)
    if regions:
        _require_regions(labels, probabilities.shape)
        pairs = zip(probabilities, labels, strict=True)
        return Temperature(tuple(_region_temperature(p, inside, shares) for p, inside in pairs), True)
    _require_labels(labels, outputs, voxels)
    scores = _log(probabilities)
    one_for_all = _minimum(scores, labels, shares, np.zeros(outputs, np.intp))[0]
    if not per_class:
        return Temperature((one_for_all,) * outputs, False)
    missing = set(range(outputs)) - set(np.unique(labels[shares > 0]).tolist())
    fixed = dict.fromkeys(missing, one_for_all)  # fitted alone it would fall until the class is never predicted
    return Temperature(tuple(_minimum(scores, labels, shares, np.arange(outputs), fixed)), False)


def _region_temperature(probability: np.ndarray, inside: np.ndarray, shares: np.ndarray) -> float:
    """The temperature of the two classes outside and inside, with the scores 0 and logit(p)."""
    counted = inside[shares > 0]
    if counted.all() or not counted.any():
        return 1.0
    complement = np.log(np.maximum(1 - probability.astype(np.float64), SMALLEST_COMPLEMENT))
    scores = np.stack([np.zeros_like(complement), _log(probability) - complement])
    return _minimum(scores, inside.astype(np.intp), shares, np.zeros(2, np.intp))[0]


def _minimum(
    scores: np.ndarray,
    labels: np.ndarray,
    shares: np.ndarray,
    parameter: np.ndarray,
    fixed: Mapping[int, float] | None = None,
) -> list[float]:
    """Temperatures that minimise -Σ_n share_n ln softmax(scores / T)[label].

    Args:
        scores: (C, N), logarithms of probabilities up to a constant per voxel.
        labels: (N).
        shares: (N), with the sum 1.
        parameter: (C), index of the temperature of each class.
        fixed: temperatures that are not fitted, by index.
    """
    from scipy.optimize import minimize  # imported here, because it takes a second

    of_truth = (labels[None].astype(np.intp), np.arange(len(labels))[None])

    def loss(log_temperature: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean negative log-likelihood in nats and its derivative with respect to ln T."""
        sharpness = np.exp(-log_temperature)[parameter]  # (C): 1 / T
        scaled = scores * sharpness[:, None]
        scaled -= scaled.max(axis=0)
        probabilities = np.exp(scaled)
        sums = probabilities.sum(axis=0)
        value = float(shares @ (np.log(sums) - scaled[of_truth][0]))
        probabilities /= sums
        probabilities[of_truth] -= 1
        by_sharpness = np.einsum("cn,cn,n->c", probabilities, scores, shares)
        return value, np.bincount(parameter, weights=-by_sharpness * sharpness)

    bounds = np.tile(np.log([[LOWEST_TEMPERATURE], [HIGHEST_TEMPERATURE]]), int(parameter.max()) + 1)  # (2, T)
    for index, temperature in (fixed or {}).items():
        bounds[:, index] = math.log(temperature)
    options = {"ftol": 0.0, "gtol": 1e-8}
    log_temperature = np.clip(0, *bounds)
    for _ in range(MOST_SEARCHES):
        found = minimize(loss, log_temperature, jac=True, method="L-BFGS-B", bounds=bounds.T, options=options)
        log_temperature = found.x
        step = np.clip(log_temperature - found.jac, *bounds) - log_temperature
        if np.abs(step).max() < LARGEST_SLOPE:  # found.success is False if rounding ends the search at the minimum
            return [float(value) for value in np.exp(log_temperature)]
    raise RuntimeError(
        f"The search for the temperatures failed ({found.message}). Use more voxels, or "
        f"one temperature for all classes."
    )


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities.astype(np.float64), SMALLEST_PROBABILITY))


def _shares(weights: np.ndarray | None, voxels: int) -> np.ndarray:
    """(N) in float64, with the sum 1."""
    if weights is None:
        return np.full(voxels, 1 / voxels)
    if weights.shape != (voxels,):
        raise ValueError(f"Weights must be one per voxel, ({voxels},); found the shape {weights.shape}.")
    values = weights.astype(np.float64)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() > 0):
        raise ValueError(f"Weights must be finite, 0 or more, and not all 0; found {values.min()} to {values.max()}.")
    return values / values.sum()


def _require_probabilities(probabilities: np.ndarray) -> None:
    if probabilities.ndim != 2 or not probabilities.size:
        raise ValueError(f"Probabilities must be (C, N) with at least one voxel; found {probabilities.shape}.")
    smallest, largest = probabilities.min(), probabilities.max()
    if not (smallest >= -ROUNDING and largest <= 1 + ROUNDING):  # so that NaN is refused, too
        raise ValueError(
            f"Probabilities must be in [0, 1]; found {smallest} to {largest}. Apply softmax or sigmoid to logits."
        )


def _require_labels(labels: np.ndarray, classes: int, voxels: int) -> None:
    if labels.shape != (voxels,):
        raise ValueError(f"Labels must be one per voxel, ({voxels},); found the shape {labels.shape}.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"Labels must be integers; found {labels.dtype}.")
    smallest, largest = labels.min(), labels.max()
    if smallest < 0 or largest >= classes:
        raise ValueError(
            f"Labels of {classes} classes must be 0 to {classes - 1}; found {smallest} to {largest}. Leave out the "
            f"voxels with the ignore label."
        )


def _require_regions(truth: np.ndarray, shape: tuple[int, ...]) -> None:
    if truth.shape != shape:
        raise ValueError(f"Probabilities and truth of regions must both be (R, N); found {shape} and {truth.shape}.")
    if truth.dtype != bool:
        raise TypeError(f"The truth of regions must be boolean masks, one each; found {truth.dtype}.")
