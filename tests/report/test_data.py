from __future__ import annotations

import json
from math import isnan
from pathlib import Path

import pytest

from nnunet_ext.evaluation.results import CaseEvaluation, FolderEvaluation
from nnunet_ext.prediction_folder.case_table import TABLE_NAME, CaseTable, read_cases
from nnunet_ext.report.data import (
    OperatingPoint,
    ReportCase,
    gather,
    not_predicted_text,
)


def case(name: str, **cells: str) -> ReportCase:
    return ReportCase({"case": name, **cells}, Path(f"{name}.nii.gz"))


def add_columns(folder: Path, columns: dict[str, dict[str, object]]) -> None:
    """Gives the rows of some cases more columns."""
    rows = read_cases(folder / TABLE_NAME)
    table = CaseTable(folder, keep_existing=False)
    for row in rows:
        table.add({**row, **columns.get(row["case"], {})})


def test_the_members_who_agree_least_come_first(prediction):
    data = gather(prediction)
    assert [case.name for case in data.cases] == ["heart_b", "heart_c", "heart_a"]  # 0.52, 0.78, 0.91
    assert data.order == "pairwise_dice"
    assert not data.calibrated


def test_with_verdicts_the_verdict_comes_before_the_predicted_dice(prediction):
    add_columns(
        prediction,
        {
            "heart_a": {"predicted_dice": 0.81, "verdict": "reject"},
            "heart_b": {"predicted_dice": 0.90, "verdict": "accept"},
            "heart_c": {"predicted_dice": 0.79, "verdict": "review"},
        },
    )
    data = gather(prediction)
    assert [case.name for case in data.cases] == ["heart_a", "heart_c", "heart_b"]
    assert data.calibrated


@pytest.mark.parametrize("missing", ["cases.csv", "dataset.json", "plans.json"])
def test_a_folder_that_is_no_prediction_is_refused(prediction, missing):
    (prediction / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"nnunet_ext predict wrote.*has no {missing}"):
        gather(prediction)


def test_a_table_without_rows_is_refused(prediction):
    (prediction / TABLE_NAME).write_text("case,members\n")
    with pytest.raises(ValueError, match="at least one case"):
        gather(prediction)


def test_folders_that_were_named_must_exist(prediction, tmp_path):
    with pytest.raises(FileNotFoundError, match="truth must exist"):
        gather(prediction, truth=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="input folder must exist"):
        gather(prediction, images=tmp_path / "nowhere")


def test_images_are_those_that_were_predicted(prediction, tmp_path, write_image, segmentation):
    image = tmp_path / "images" / "heart_a_0000.nii.gz"
    write_image(segmentation, image)
    (prediction / "predict_args.json").write_text(json.dumps({"arguments": {"i": str(image.parent)}, "members": []}))
    data = gather(prediction)
    assert {case.name: case.image for case in data.cases} == {"heart_a": (image,), "heart_b": (), "heart_c": ()}
    assert data.notes == ()


def test_images_without_a_prediction_are_named_first(prediction, tmp_path, write_image, segmentation):
    for name in ("heart_a", "heart_b", "heart_c", "heart_failed"):
        write_image(segmentation, tmp_path / "images" / f"{name}_0000.nii.gz")
    data = gather(prediction, images=tmp_path / "images")
    assert data.not_predicted == ("heart_failed",)
    assert data.notes[0].startswith("Not predicted: heart_failed.")


def test_many_images_without_a_prediction_are_counted():
    text = not_predicted_text([f"case_{number:02}" for number in range(12)])
    assert "case_09 and 2 more" in text
    assert "case_10" not in text


def test_images_that_are_gone_are_a_note(prediction):
    (prediction / "predict_args.json").write_text(json.dumps({"arguments": {"i": "/gone"}, "members": []}))
    assert "drawn on black" in gather(prediction).notes[0]


def test_an_evaluation_gives_the_cases_their_dice(prediction):
    evaluation = FolderEvaluation({"RV": (1,)}, [CaseEvaluation("heart_a", {}, {"mean_dice": 0.83}, {})])
    dice = {case.name: case.dice for case in gather(prediction, evaluation=evaluation).cases}
    assert dice["heart_a"] == 0.83
    assert isnan(dice["heart_b"])


def test_a_model_that_was_predicted_elsewhere_is_named_and_not_found(prediction):
    file = r"D:\models\Dataset007_Heart\nnUNetTrainer__nnUNetPlans__2d\fold_0\checkpoint_final.pth"
    (prediction / "predict_args.json").write_text(json.dumps({"members": [{"name": "fold_0", "file": file}]}))
    (model,) = gather(prediction).models
    assert (model.dataset, model.name) == ("Dataset007_Heart", "nnUNetTrainer__nnUNetPlans__2d")
    assert not model.found


@pytest.mark.parametrize(
    ("column", "confidence", "threshold", "cells", "accepted"),
    [
        ("pairwise_dice", 0.8, 0.8, ["0.81", "0.8", ""], [True, False, False]),
        ("mean_entropy", -0.2, 0.2, ["0.1", "0.2", "0.3"], [True, False, False]),
    ],
)
def test_cases_above_the_operating_point_are_accepted(column, confidence, threshold, cells, accepted):
    point = OperatingPoint(column, confidence)
    assert point.threshold == threshold
    assert [point.accepts({column: cell}) for cell in cells] == accepted
