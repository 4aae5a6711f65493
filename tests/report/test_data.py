from __future__ import annotations

import json
from math import isnan
from pathlib import Path

import numpy as np
import pytest

from nnunet_ext.evaluation.results import CaseEvaluation, FolderEvaluation
from nnunet_ext.prediction_folder.case_table import TABLE_NAME, CaseTable, read_cases
from nnunet_ext.report.data import (
    OperatingPoint,
    ReportCase,
    gather,
    not_predicted_text,
    number_in,
    order_column,
    worst_first,
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


def test_of_equal_verdicts_the_smaller_predicted_dice_comes_first():
    cases = [case(name, verdict="review", predicted_dice=dice) for name, dice in (("a", "0.8"), ("b", "0.7"))]
    assert [found.name for found in worst_first(cases, "predicted_dice")] == ["b", "a"]


def test_of_equal_predicted_dice_the_largest_entropy_comes_first():
    entropies = {"a": "0.1", "b": "0.3", "c": "0.2"}
    cases = [
        case(name, verdict="accept", predicted_dice="0.9", foreground_entropy=value)
        for name, value in entropies.items()
    ]
    assert [found.name for found in worst_first(cases, "predicted_dice")] == ["b", "c", "a"]


def test_the_largest_entropy_comes_first():
    cases = [case("a", foreground_entropy="0.1"), case("b", foreground_entropy="0.3")]
    assert [found.name for found in worst_first(cases, "foreground_entropy")] == ["b", "a"]


def test_empty_segmentations_come_first_because_they_read_as_confident():
    cases = [case("a", pairwise_dice="0.5"), case("b", pairwise_dice="1", flags="empty_segmentation")]
    assert [found.name for found in worst_first(cases, "pairwise_dice")] == ["b", "a"]


def test_a_case_without_a_value_comes_before_those_with_one():
    cases = [case("a", predicted_dice="0.1"), case("b", predicted_dice="")]
    assert [found.name for found in worst_first(cases, "predicted_dice")] == ["b", "a"]


def test_with_one_member_the_entropy_orders_the_cases():
    rows = [{"case": "a", "pairwise_dice": "", "foreground_entropy": "0.1"}]
    assert order_column(rows) == "foreground_entropy"


def test_cases_without_any_confidence_are_in_alphabetical_order():
    assert order_column([{"case": "a"}]) == ""
    assert [found.name for found in worst_first([case("b"), case("a")], "")] == ["a", "b"]


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


def test_numbers_of_a_calibration_count_as_those_of_a_table():
    assert number_in({"dice": 0.0}, "dice") == 0.0
    assert np.isnan(number_in({"dice": None}, "dice"))
    assert number_in({"dice": "0.25"}, "dice") == 0.25


def test_a_decimal_comma_is_refused():
    with pytest.raises(ValueError, match="decimal mark; the column dice of a holds '0,8'"):
        number_in({"case": "a", "dice": "0,8"}, "dice")
