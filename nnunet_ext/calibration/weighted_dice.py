"""Dice of an ensemble of models with a weight for each class or region, on cases that were reduced to a sample."""

from __future__ import annotations

import numpy as np
import torch

from nnunet_ext.calibration.ensemble_case import EnsembleCase


def sharpened_dice(case: EnsembleCase, weights: torch.Tensor, *, regions: bool, sharpness: float) -> torch.Tensor:
    """Dice 2 Σ q g / (Σ q + Σ g) of every class or region, (C) float64; differentiable in the weights.

    What the case lacks has 0, with a gradient of 0, also where nothing of it is predicted and Dice would be 0/0.

    With the sharpness s, q is p^s, normalised over the classes, or for a region over p and 1 - p. s = 1 is soft
    Dice, a large s that of the segmentation. Soft Dice rates a model by its confidence as well: it leaves out an
    unconfident model that would correct a confident one.

    Args:
        case: the case; what is not in its sample counts as its segmentation.
        weights: (K, C) float64.
        regions: whether the outputs are regions; classes are renormalised.
        sharpness: s, above 0.
    """
    values = torch.from_numpy(case.probabilities).double()
    mixed = (weights[:, :, None] * values).sum(0).clamp_min(torch.finfo(torch.float64).tiny)
    if regions:
        against = (1 - mixed).clamp_min(torch.finfo(torch.float64).tiny)
        sharp = torch.sigmoid(sharpness * (mixed.log() - against.log()))
    else:
        sharp = torch.softmax(sharpness * mixed.log(), dim=0)
    sharp = sharp * torch.from_numpy(case.stands_for)
    overlap = (sharp * torch.from_numpy(case.truth)).sum(1) + torch.from_numpy(case.settled_hits)
    truth_voxels = torch.from_numpy(case.truth_voxels)
    size = sharp.sum(1) + torch.from_numpy(case.settled_predicted) + truth_voxels
    # chosen before the division: a NaN that is left out afterwards still has the gradient NaN
    return 2 * overlap / torch.where(truth_voxels > 0, size, 1.0)


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
