"""A prediction folder as `nnunet_ext predict` writes it, small enough to be worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunet_ext.prediction_folder.case_table import CaseTable

SHAPE = (5, 24, 20)  # z, y, x
SPACING_MM = (8.0, 1.0, 2.0)
LABELS = {"background": 0, "RV": 1, "LV": 2}

WriteImage = Callable[[np.ndarray, Path], None]


@pytest.fixture
def write_image() -> WriteImage:
    """Writes (z, y, x) as NIfTI, which stores (x, y, z)."""

    def write(values: np.ndarray, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        affine = np.diag([*SPACING_MM[::-1], 1.0])
        nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), affine), path)

    return write


@pytest.fixture
def segmentation() -> np.ndarray:
    """RV and LV side by side in the slices 1 to 3."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[1:4, 8:16, 4:9] = 1
    labels[1:4, 8:16, 9:14] = 2
    return labels


@pytest.fixture
def entropy() -> np.ndarray:
    """Most in slice 2, then in slice 1, some in slice 3, none elsewhere."""
    values = np.zeros(SHAPE, dtype=np.float32)
    values[1:4, 8:16, 8:10] = np.array([0.5, 0.9, 0.2])[:, None, None]
    return values


@pytest.fixture
def prediction(tmp_path: Path, write_image: WriteImage, segmentation: np.ndarray) -> Path:
    """Three cases without images, maps and calibration; the least confident one is `heart_b`."""
    folder = tmp_path / "results"
    table = CaseTable(folder, keep_existing=False)
    for case, agreement in (("heart_a", 0.91), ("heart_b", 0.52), ("heart_c", 0.78)):
        write_image(segmentation, folder / f"{case}.nii.gz")
        table.add(
            {
                "case": case,
                "members": 4,
                "mean_entropy": 0.031,
                "foreground_entropy": 0.123,
                "mutual_information": 0.0,
                "pairwise_dice": agreement,
                "volume_ml_RV": 36.08,
                "volume_cv_RV": 0.174,
                "flags": [],
            }
        )
    dataset = {"channel_names": {"0": "MRI"}, "labels": LABELS, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (folder / "plans.json").write_text(json.dumps({"image_reader_writer": "NibabelIO"}))
    return folder
