"""What calibration keeps of a held-out case and its prediction."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_ext.boxes import bounding_box
from nnunet_ext.calibration.risk_control import MissCounts, foreground_probability
from nnunet_ext.evaluation.case_metrics import in_box, masks_of, nan_mean
from nnunet_ext.evaluation.overlap_counts import joint_histogram, overlap_counts
from nnunet_ext.labels import LabelScheme
from nnunet_ext.prediction_folder.case_files import CasePrediction

MOST_VOXELS = 50_000  # per case; drawn at random from the bounding box of its true foreground


@dataclass(frozen=True)
class CalibrationCase:
    """A case, small enough to keep hundreds in memory.

    Attributes:
        case: its name.
        patient: patient that it belongs to.
        fold: fold whose members predicted it.
        row: its row of `cases.csv`.
        dice: mean over the structures that prediction or truth have; NaN if there are none.
        probabilities: (C, n) float32, of voxels in the bounding box of the true foreground; n is 0 if it is empty.
        truth: (n) labels, or (R, n) boolean masks of regions.
        misses: true foreground voxels, counted by the threshold at which a mask includes them, over all voxels.
    """

    case: str
    patient: str
    fold: str
    row: Mapping[str, Any]
    dice: float
    probabilities: np.ndarray
    truth: np.ndarray
    misses: MissCounts


def calibration_case(
    prediction: CasePrediction, truth: np.ndarray, scheme: LabelScheme, *, patient: str, fold: str
) -> CalibrationCase:
    """Reduces a predicted case to what calibration needs.

    Args:
        prediction: with the ensemble's probabilities, not calibrated. Its name also decides which voxels are drawn.
        truth: (z, y, x), the label map.
        scheme: how label map and outputs are interpreted.
        patient: patient that the case belongs to.
        fold: fold whose members predicted it.

    Raises:
        ValueError: if the prediction has no probabilities.
    """
    if prediction.probabilities is None:
        raise ValueError(
            f"Calibration needs the probabilities of every case; {prediction.case} has none. Predict with "
            f"save_probabilities=True."
        )
    counted = np.ones(truth.shape, dtype=bool) if scheme.ignore_label is None else truth != scheme.ignore_label
    histogram = joint_histogram(truth, prediction.segmentation)
    foreground = (truth > 0) & counted
    cropped, labels, mask = in_box(bounding_box(foreground), prediction.probabilities, truth, counted)
    voxels = drawn_voxels(mask, seed=zlib.crc32(prediction.case.encode()))
    flat_labels = labels.reshape(-1)[voxels]  # (n)
    return CalibrationCase(
        case=prediction.case,
        patient=patient,
        fold=fold,
        row=dict(prediction.row),
        dice=nan_mean(
            [
                overlap_counts(histogram, labels, ignore_label=scheme.ignore_label).dice
                for labels in scheme.structures.values()
            ]
        ),
        probabilities=cropped.reshape(len(cropped), -1)[:, voxels].astype(np.float32),
        truth=masks_of(flat_labels, scheme.structures) if scheme.regions else flat_labels,
        misses=MissCounts.of(foreground_probability(prediction.probabilities, regions=scheme.regions), foreground),
    )


def drawn_voxels(mask: np.ndarray, *, seed: int) -> np.ndarray:
    """(n): flat indices of the mask's voxels, at most `MOST_VOXELS`, drawn without replacement."""
    voxels = np.flatnonzero(mask)
    if len(voxels) <= MOST_VOXELS:
        return voxels
    return np.sort(np.random.default_rng(seed).choice(voxels, MOST_VOXELS, replace=False))
