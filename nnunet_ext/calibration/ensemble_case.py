"""What the fit of ensemble weights keeps of a held-out case that every model predicted."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from nnunet_ext.evaluation.overlap import dice
from nnunet_ext.labels import LabelScheme

MOST_VOXELS = 10_000  # per case, drawn at random from those where weights matter, the same number of each label
SETTLED = 0.99  # where all models say yes or no with this probability, they say the same with any weights


@dataclass(frozen=True)
class EnsembleCase:
    """A case, small enough to keep hundreds in memory. K is the number of models, C that of classes or regions.

    Weights only matter where models are undecided or disagree. Of these voxels a sample is kept; all others are
    counted.

    Attributes:
        case: its name.
        patient: patient that it belongs to.
        fold: fold whose members predicted it.
        probabilities: (K, C, n) float32, of the sample.
        truth: (C, n) bool.
        stands_for: (n) float64, number of undecided voxels that each of the sample stands for.
        truth_voxels: (C), number of true voxels of the whole image.
        settled_hits: (C), number of the others that are predicted and true.
        settled_predicted: (C), number of the others that are predicted.
        model_dice: (K, C), Dice of each model alone; NaN where prediction and truth are empty.
    """

    case: str
    patient: str
    fold: str
    probabilities: np.ndarray
    truth: np.ndarray
    stands_for: np.ndarray
    truth_voxels: np.ndarray
    settled_hits: np.ndarray
    settled_predicted: np.ndarray
    model_dice: np.ndarray


def ensemble_case(
    case: str, probabilities: np.ndarray, truth: np.ndarray, scheme: LabelScheme, *, patient: str, fold: str
) -> EnsembleCase:
    """Reduces a case to what the fit of ensemble weights needs. Voxels with the ignore label count nowhere.

    Args:
        case: its name, which also decides which voxels are drawn.
        probabilities: (K, C, *spatial), of each model.
        truth: (*spatial), the label map.
        scheme: how label map and outputs are interpreted.
        patient: patient that the case belongs to.
        fold: fold whose members predicted it.
    """
    flat = probabilities.reshape(*probabilities.shape[:2], -1)
    labels = truth.reshape(-1)
    if scheme.ignore_label is not None:
        counted = labels != scheme.ignore_label
        flat, labels = flat[:, :, counted], labels[counted]
    masks = np.stack([np.isin(labels, region) for region in scheme.outputs().values()])  # (C, N)
    settled = settled_voxels(flat, regions=scheme.regions)
    kept, stands_for = drawn_by_label(np.flatnonzero(~settled), labels, seed=zlib.crc32(case.encode()))
    predicted = flat[0][:, settled] > 0.5  # (C, others)
    return EnsembleCase(
        case=case,
        patient=patient,
        fold=fold,
        probabilities=flat[:, :, kept].astype(np.float32),
        truth=masks[:, kept],
        stands_for=stands_for,
        truth_voxels=masks.sum(axis=1),
        settled_hits=(predicted & masks[:, settled]).sum(axis=1),
        settled_predicted=predicted.sum(axis=1),
        model_dice=np.array([dice_of(one, masks, regions=scheme.regions) for one in flat]),
    )


def settled_voxels(probabilities: np.ndarray, *, regions: bool) -> np.ndarray:
    """(N) bool: where all models agree with a probability of `SETTLED` or more about every class or region.

    Args:
        probabilities: (K, C, N).
        regions: whether the outputs are regions; of classes, one must be present.
    """
    settled = np.ones(probabilities.shape[2], dtype=bool)
    present = np.zeros_like(settled)
    for channel in range(probabilities.shape[1]):
        yes = probabilities[:, channel].min(axis=0) >= SETTLED
        no = probabilities[:, channel].max(axis=0) <= 1 - SETTLED
        settled &= yes | no
        present |= yes
    return settled if regions else settled & present


def drawn_by_label(voxels: np.ndarray, labels: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws `MOST_VOXELS` of some voxels, as evenly from the labels as they allow, so that small structures stay.

    Args:
        voxels: (n), indices into the labels.
        labels: (N), the true label of every voxel.
        seed: of the draw.

    Returns:
        The drawn indices, and how many voxels each of them stands for.
    """
    rng = np.random.default_rng(seed)
    of_label = [voxels[labels[voxels] == label] for label in np.unique(labels[voxels])]
    drawn, stands_for = [np.empty(0, np.intp)], [np.empty(0)]
    left = MOST_VOXELS
    by_size = sorted(of_label, key=len)
    for number, found in enumerate(by_size):
        share = min(len(found), left // (len(by_size) - number))
        left -= share
        drawn.append(np.sort(rng.choice(found, share, replace=False)) if share < len(found) else found)
        stands_for.append(np.full(share, len(found) / share))
    return np.concatenate(drawn), np.concatenate(stands_for)


def dice_of(probabilities: np.ndarray, masks: np.ndarray, *, regions: bool) -> list[float]:
    """Dice of one model's classes (most likely) or regions (above 0.5); NaN where prediction and truth are empty.

    Args:
        probabilities: (C, N).
        masks: (C, N), the truth.
        regions: which of the two.
    """
    winner = None if regions else probabilities.argmax(axis=0)
    return [
        dice(value > 0.5 if winner is None else winner == channel, mask)
        for channel, (value, mask) in enumerate(zip(probabilities, masks, strict=True))
    ]
