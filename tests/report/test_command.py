"""What `nnunet_ext report` refuses to draw, and which calibration it takes for that of the folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.calibration.quality import QualityMap
from nnunet_ext.calibration.temperature import Temperature
from nnunet_ext.calibration.verdict import Threshold
from nnunet_ext.commands.report import applied_calibration, report_folder
from nnunet_ext.options import ReportOptions
from nnunet_ext.prediction_folder.agreement import DisagreementError

MEMBERS = [{"name": f"fold_{fold}", "file": f"/gone/model/fold_{fold}/checkpoint_final.pth"} for fold in range(4)]


def calibration() -> Calibration:
    return Calibration(
        temperature=Temperature((1.7, 1.7), False),
        confidence="pairwise_dice",
        quality=QualityMap((0.0, 1.0), (0.0, 1.0), -0.1, 0.1, 0.9, 100, 50),
        threshold=Threshold(0.3, 0.2, 0.95, 0.2, 20, 100),
        mask=None,
        settings={},
        fitted_on={"members": []},
        figures={},
        cases=[],
    )


def record(prediction: Path, **content: object) -> None:
    (prediction / "predict_args.json").write_text(json.dumps({"members": MEMBERS, **content}))


def test_members_that_differ_from_those_of_the_table_are_refused(prediction):
    """`Members 1` beside a table of 4 is what the page would say."""
    record(prediction, members=MEMBERS[:1], arguments={"tta_members": False})
    with pytest.raises(DisagreementError, match="4 members for heart_a, heart_b, heart_c"):
        report_folder(ReportOptions(predictions=prediction))
    assert not (prediction / "report.html").exists()
    record(prediction, arguments={"tta_members": False})
    report_folder(ReportOptions(predictions=prediction))


def test_a_row_without_segmentation_is_refused(prediction):
    record(prediction)
    (prediction / "heart_b.nii.gz").unlink()
    with pytest.raises(DisagreementError, match="no segmentation of heart_b"):
        report_folder(ReportOptions(predictions=prediction))


def test_a_calibration_that_was_fitted_again_is_not_that_of_the_folder(prediction, tmp_path, caplog):
    file = tmp_path / "calibration.json"
    calibration().save(file)
    record(prediction, arguments={"calibrated": str(file)}, ensemble={"calibration": calibration().sha256})
    assert applied_calibration(prediction) == calibration()
    record(prediction, arguments={"calibrated": str(file)}, ensemble={"calibration": 64 * "0"})
    assert applied_calibration(prediction) is None
    assert f"{file} is not the calibration" in caplog.text
    record(prediction, arguments={"calibrated": str(file)})  # of an earlier version, which did not say which
    assert applied_calibration(prediction) == calibration()


def test_a_calibration_that_is_gone_is_named(prediction, tmp_path, caplog):
    record(prediction, arguments={"calibrated": str(tmp_path / "gone.json")})
    assert applied_calibration(prediction) is None
    assert f"{tmp_path / 'gone.json'}, the calibration that" in caplog.text


def test_the_page_says_what_speaks_against_the_calibration(prediction, tmp_path):
    file = tmp_path / "calibration.json"
    off = {"mean_absolute_error": 0.25, "mean_absolute_error_of_mean": 0.125}
    replace(calibration(), figures={"quality": off}).save(file)
    record(prediction, arguments={"calibrated": str(file)})
    table = prediction / "cases.csv"
    header, *rows = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join([f"{header},verdict", *(f"{row},review" for row in rows)]), encoding="utf-8")
    page = report_folder(ReportOptions(predictions=prediction)).page.read_text(encoding="utf-8")
    assert "Calibration: " in page
    assert "0.250" in page
    assert "0.125" in page
