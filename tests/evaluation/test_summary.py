"""Files of an evaluation: nnU-Net's part against nnU-Net's own program, our part and the tables by hand."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nnunetv2.evaluation import evaluate_predictions as stock
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO

from nnunet_ext.evaluation.folder import evaluate_folder, open_dataset
from nnunet_ext.evaluation.overlap_counts import OverlapCounts
from nnunet_ext.evaluation.reliability import ReliabilityBins
from nnunet_ext.evaluation.results import CaseEvaluation, FolderEvaluation
from nnunet_ext.evaluation.summary import (
    distribution,
    end_share,
    own_summary,
    stock_summary,
    write_case_metrics_csv,
    write_metrics_csv,
    write_summary,
)

NAN = math.nan
STOCK_KEYS = ("foreground_mean", "mean", "metric_per_case")


# --- nnU-Net's part ---


class InThisProcess:
    """Stands in for nnU-Net's pool: it spawns, which takes seconds."""

    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: Any) -> None: ...

    def starmap(self, function, arguments):
        return [function(*each) for each in arguments]


@pytest.fixture
def stock_program(monkeypatch: pytest.MonkeyPatch):
    """`nnUNetv2_evaluate_folder`; gives the content of the summary.json that it writes."""
    context = type("Context", (), {"Pool": InThisProcess})
    monkeypatch.setattr(stock.multiprocessing, "get_context", lambda method: context)

    def run(truths: Path, predictions: Path, description: Path, plans: Path, output: Path) -> dict[str, Any]:
        stock.compute_metrics_on_folder2(str(truths), str(predictions), str(description), str(plans), str(output))
        return json.loads(output.read_text())

    return run


@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")  # of nnU-Net, about the absent class
@pytest.mark.parametrize(
    ("labels", "regions_class_order", "highest", "truth_highest"),
    [
        ({"background": 0, "a": 1, "b": 2}, None, 3, 3),
        # an absent class, names in another order than their labels, and 5 is to be ignored
        ({"background": 0, "d": 4, "b": 2, "c": 3, "a": 1, "ignore": 5}, None, 4, 6),
        ({"background": 0, "whole": [1, 2, 3], "core": [2], "tip": 3, "ignore": 4}, [1, 2, 3], 4, 5),
    ],
    ids=["classes", "absent class", "regions"],
)
def test_nnunets_keys_hold_what_nnunet_writes(
    labels, regions_class_order, highest, truth_highest, stock_program, tmp_path
):
    """Equal to the last bit, on random label maps; one of five cases is empty in both folders."""
    rng = np.random.default_rng(0)
    absent = 4
    for case in range(5):
        for folder, end in (("truths", truth_highest), ("predictions", highest)):
            values = rng.integers(0, end, (5, 6, 7)).astype(np.uint8)
            if labels.get("ignore") == 5:
                values[values == absent] = 0
            (tmp_path / folder).mkdir(exist_ok=True)
            image = nibabel.Nifti1Image(values * (case > 0), np.eye(4))
            nibabel.save(image, tmp_path / folder / f"case_{case}.nii.gz")
    description = {"labels": labels, "file_ending": ".nii.gz", "overwrite_image_reader_writer": "NibabelIO"}
    if regions_class_order:
        description["regions_class_order"] = regions_class_order
    plans = {"label_manager": "LabelManager"}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    truths, predictions = tmp_path / "truths", tmp_path / "predictions"

    expected = stock_program(
        truths, predictions, tmp_path / "dataset.json", tmp_path / "plans.json", tmp_path / "stock.json"
    )
    dataset = open_dataset(description, plans, [truths / "case_0.nii.gz"])
    assert isinstance(dataset.reader, NibabelIO)
    write_summary(evaluate_folder(truths, predictions, dataset), tmp_path / "ours.json", {})
    found = json.loads((tmp_path / "ours.json").read_text())
    assert set(found) == {*STOCK_KEYS, "nnunet_ext"}
    np.testing.assert_equal({key: found[key] for key in STOCK_KEYS}, expected)
    key = "2" if "a" in labels else "(2,)"
    assert {type(value) for value in found["metric_per_case"][1]["metrics"][key].values()} == {int, float}


# --- our part ---


def case(name: str, *, dice: Sequence[float], **figures: float) -> CaseEvaluation:
    """Of the structures a and b."""
    structures = {
        structure: {"dice": value, "hd95_mm": 2.5, "lesions": 3}
        for structure, value in zip(("a", "b"), dice, strict=True)
    }
    metrics = {key: {"Dice": value, "TP": 4} for key, value in zip((1, 2), dice, strict=True)}
    return CaseEvaluation(name, structures, figures, stock={"prediction_file": f"{name}.nii.gz", "metrics": metrics})


@pytest.fixture
def evaluation() -> FolderEvaluation:
    cases = [
        case("one", dice=(0.5, NAN), mean_dice=0.5, end_slice_dice_paper=0.9, end_slice_dice_strict=0.7),
        case("two", dice=(1.0, NAN), mean_dice=1.0, end_slice_dice_paper=0.85, end_slice_dice_strict=NAN),
        case("three", dice=(0.9, NAN), mean_dice=0.9, ece=0.123456789),
    ]
    return FolderEvaluation({"a": (1,), "b": (2,)}, cases, {"four": "There is no prediction of this case."})


def test_means_of_nnunets_part_leave_out_nan_and_the_foreground_does_not(evaluation):
    """As in nnU-Net: a class that no case has makes the mean over the classes NaN."""
    summary = stock_summary(evaluation)
    assert summary["mean"]["1"] == pytest.approx({"Dice": 0.8, "TP": 4})
    assert math.isnan(summary["mean"]["2"]["Dice"])
    assert math.isnan(summary["foreground_mean"]["Dice"])
    assert summary["foreground_mean"]["TP"] == 4
    assert list(summary["metric_per_case"][0]["metrics"]) == ["1", "2"]


def test_our_part_says_mean_spread_median_range_and_number_of_cases(evaluation):
    summary = own_summary(evaluation)
    assert summary["cases"] == 3
    std = math.sqrt((0.3**2 + 0.2**2 + 0.1**2) / 2)  # of a sample: by n - 1
    assert summary["structures"]["a"]["dice"] == pytest.approx(
        {"mean": 0.8, "std": std, "median": 0.9, "min": 0.5, "max": 1, "cases": 3}
    )
    assert summary["case_figures"]["ece"]["cases"] == 1
    assert summary["structures"]["b"]["dice"]["cases"] == 0
    assert summary["problems"] == {"four": "There is no prediction of this case."}


def test_end_coefficients_count_cases_above_08(evaluation):
    """Paper: 0.9 and 0.85; strict: only one case has ends, and it is below."""
    assert own_summary(evaluation)["end_coefficient"] == {"paper": 1, "strict": 0}
    assert own_summary(evaluation, end_threshold=0.86)["end_coefficient"] == {"paper": 0.5, "strict": 0}
    assert end_share([0.8, 0.81, NAN], 0.8) == 0.5  # above, not at it
    assert math.isnan(end_share([NAN], 0.8))


def test_what_is_not_defined_is_null_in_our_part(evaluation, tmp_path):
    detection = {"failure_detection": {"pairwise_dice": {"aurc": NAN}}}
    write_summary(evaluation, tmp_path / "summary.json", own_summary(evaluation) | detection)
    own = json.loads((tmp_path / "summary.json").read_text())["nnunet_ext"]
    nothing = dict.fromkeys(("mean", "std", "median", "min", "max"))
    assert own["structures"]["b"]["dice"] == {**nothing, "cases": 0}
    assert own["failure_detection"] == {"pairwise_dice": {"aurc": None}}
    assert "NaN" not in json.dumps(own)


def test_a_folder_without_a_case_has_a_summary(tmp_path):
    nothing = FolderEvaluation({"a": (1,)}, [], {"one": "It is damaged."})
    write_summary(nothing, tmp_path / "summary.json", own_summary(nothing))
    content = json.loads((tmp_path / "summary.json").read_text())
    assert (content["foreground_mean"], content["mean"], content["metric_per_case"]) == ({}, {}, [])
    assert content["nnunet_ext"]["end_coefficient"] == {"paper": None, "strict": None}
    assert content["nnunet_ext"]["structures"] == {"a": {}}


def test_a_spread_is_over_the_cases_that_define_a_figure():
    found = distribution([{"dice": 0.2}, {"dice": NAN}, {"dice": 0.6}, {}])
    expected = {"mean": 0.4, "std": math.sqrt(0.08), "median": 0.4, "min": 0.2, "max": 0.6, "cases": 2}
    assert found == {"dice": pytest.approx(expected)}


def test_one_case_has_no_spread():
    assert math.isnan(distribution([{"dice": 0.2}, {"dice": NAN}])["dice"]["std"])


def test_pooled_dice_is_that_of_all_voxels_together():
    """a: 2·(8 + 1)/(2·9 + 2 + 0) = 0.9, the mean of 1 and 0.5 would be 0.75. b is nowhere."""
    nowhere = OverlapCounts(tp=0, fp=0, fn=0, tn=9)
    cases = [
        replace(case("one", dice=(1.0, NAN)), counts={"a": OverlapCounts(tp=8, fp=0, fn=0, tn=1), "b": nowhere}),
        replace(case("two", dice=(0.5, NAN)), counts={"a": OverlapCounts(tp=1, fp=2, fn=0, tn=6), "b": nowhere}),
    ]
    pooled = own_summary(FolderEvaluation({"a": (1,), "b": (2,)}, cases))["pooled_dice"]
    assert pooled == pytest.approx({"a": 0.9, "b": NAN}, nan_ok=True)


def test_our_part_counts_where_a_structure_is_absent():
    found, absent = OverlapCounts(tp=1, fp=0, fn=0, tn=5), OverlapCounts(tp=0, fp=0, fn=0, tn=6)
    cases = [
        replace(case("one", dice=(1.0, NAN)), counts={"a": found, "b": absent}),
        replace(case("two", dice=(NAN, NAN)), counts={"a": absent, "b": absent}),
    ]
    assert own_summary(FolderEvaluation({"a": (1,), "b": (2,)}, cases))["absent"] == {"a": 1, "b": 2}


def test_our_part_has_the_reliability_diagram_of_all_cases_in_20_bins():
    """40 bins: 3 voxels in the first two, 1 of them right; 10 in the last, all right."""
    voxels, correct = np.zeros((2, 40), np.int64)
    voxels[[0, 1, 39]], correct[[1, 39]] = (1, 2, 10), (1, 10)
    sums = np.zeros(40)
    sums[[0, 1, 39]] = 0.02, 0.08, 9.9
    cases = [replace(case("one", dice=(1.0, NAN)), reliability=ReliabilityBins(voxels, sums, correct))] * 2
    found = own_summary(FolderEvaluation({"a": (1,)}, cases))["reliability"]
    assert found["voxels"] == [6] + [0] * 18 + [20]
    assert (found["confidence"][0], found["confidence"][-1]) == pytest.approx((0.1 / 3, 0.99))
    assert (found["accuracy"][0], found["accuracy"][-1]) == pytest.approx((1 / 3, 1))


def test_without_probabilities_our_part_has_no_reliability_diagram():
    cases = [case("one", dice=(1.0, NAN))]
    assert own_summary(FolderEvaluation({"a": (1,)}, cases))["reliability"] is None


# --- tables ---


def test_metrics_csv_has_a_row_a_case_and_structure(evaluation, tmp_path):
    write_metrics_csv(evaluation, tmp_path / "metrics.csv")
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "case,structure,dice,hd95_mm,lesions"
    assert lines[1:3] == ["one,a,0.5,2.5,3", "one,b,,2.5,3"]  # b has no Dice
    assert len(lines) == 1 + 3 * 2


def test_case_metrics_csv_has_all_columns_that_a_case_has(evaluation, tmp_path):
    write_case_metrics_csv(evaluation, tmp_path / "case_metrics.csv")
    with (tmp_path / "case_metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["case", "mean_dice", "end_slice_dice_paper", "end_slice_dice_strict", "ece"]
    assert [row["end_slice_dice_strict"] for row in rows] == ["0.7", "", ""]
    assert [row["ece"] for row in rows] == ["", "", "0.123457"]
