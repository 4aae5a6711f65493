"""Dice of an ensemble of models with a weight for each class or region, on cases that were reduced to a sample."""

from __future__ import annotations

import numpy as np
import torch

from nnunet_ext.calibration.ensemble_case import EnsembleCase


def soft_dice(case: EnsembleCase, weights: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """Soft Dice 2 Σ p g / (Σ p + Σ g) of every class or region, (C) float64; differentiable in the weights.

    Voxels that are not in the sample, where one class has nearly all the probability, are not renormalised.

    Args:
        case: the case.
        weights: (K, C) float64.
        regions: whether the outputs are regions; classes are renormalised.
    """
    values = torch.from_numpy(case.probabilities).double()
    mixed = (weights[:, :, None] * values).sum(0)
    if not regions:
        mixed = mixed / mixed.sum(0)
    mixed = mixed * torch.from_numpy(case.stands_for)
    overlap = (mixed * torch.from_numpy(case.truth)).sum(1)
    overlap = overlap + (weights * torch.from_numpy(case.settled_overlap)).sum(0)
    size = mixed.sum(1) + (weights * torch.from_numpy(case.settled_sum)).sum(0)
    return 2 * overlap / (size + torch.from_numpy(case.truth_voxels))


def dice_with(case: EnsembleCase, weights: np.ndarray, *, regions: bool) -> np.ndarray:
    """Dice of the ensemble's segmentation, (C); NaN where prediction and truth are empty.

    Args:
        case: the case.
        weights: (K, C).
        regions: whether the outputs are regions, which are present above 0.5; of classes the most likely counts.
    """
    mixed = np.einsum("kc,kcn->cn", weights, case.probabilities.astype(np.float64))
    predicted = mixed > 0.5 if regions else mixed.argmax(axis=0) == np.arange(len(mixed))[:, None]
    hits = case.settled_hits + (predicted & case.truth) @ case.stands_for
    size = case.settled_predicted + predicted @ case.stands_for + case.truth_voxels
    return np.divide(2 * hits, size, out=np.full(len(size), np.nan), where=size > 0)
