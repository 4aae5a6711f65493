"""What `nnunet_ext predict` says of the calibration that it applies."""

from __future__ import annotations

import logging

from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.calibration.quality import QualityMap
from nnunet_ext.calibration.temperature import Temperature
from nnunet_ext.calibration.verdict import Threshold
from nnunet_ext.commands.predict import opened_calibration, warn_of_images


def calibration(failures: int) -> Calibration:
    """Of forty cases."""
    return Calibration(
        temperature=Temperature((1.0, 1.0), regions=False),
        confidence="mean_entropy",
        quality=QualityMap((-0.2, -0.1), (0.5, 0.9), -0.1, 0.1, 0.9, 40, 40),
        threshold=Threshold(-0.15, 0.75, 0.95, 0.2, failures, 40),
        mask=None,
        settings={},
        fitted_on={"members": []},
        figures={},
        cases=[],
    )


def test_a_calibration_on_few_failures_is_applied_with_a_warning(tmp_path, caplog):
    file = tmp_path / "calibration.json"
    calibration(failures=2).save(file)
    assert opened_calibration(file) == calibration(failures=2)
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert f"{file}: 2 of 40 cases fail" in warning.getMessage()


def test_a_calibration_on_enough_of_both_kinds_is_applied_without(tmp_path, caplog):
    calibration(failures=20).save(tmp_path / "calibration.json")
    opened_calibration(tmp_path / "calibration.json")
    assert caplog.records == []


def test_images_that_are_not_predicted_because_of_their_names_are_warned_of(tmp_path, caplog):
    for name in ("a_0000.nii.gz", "b.nii.gz"):
        (tmp_path / name).touch()
    warn_of_images(tmp_path, ".nii.gz", "SimpleITKIO")
    (warning,) = caplog.records
    assert warning.getMessage() == f"{tmp_path}: 1 not taken, because images are named CASE_0000.nii.gz: b.nii.gz"
