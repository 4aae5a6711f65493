"""`nnunet_ext evaluate` on the folds of a cross-validation, and on a truth whose labels have other numbers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from nnunet_ext.cli import main

LABELS = {"background": 0, "RV": 1, "LV": 2}


def heart(rv: int = 1, lv: int = 2, *, shift: int = 0) -> np.ndarray:
    """(4, 6, 12): two blocks of 2·2·4 voxels beside each other; the left one is shifted to the right."""
    values = np.zeros((4, 6, 12), np.uint8)
    values[1:3, 2:4, 7:11] = lv
    values[1:3, 2:4, 1 + shift : 5 + shift] = rv
    return values


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([1.0, 1.0, 4.0, 1.0])), path)


def describe(folder: Path, labels: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    (folder / "plans.json").write_text(json.dumps({"label_manager": "LabelManager"}))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two folds; RV's Dice is 1 and 0.75 in the first and 0.5 in the second, and LV is right."""
    describe(tmp_path / "model", LABELS)
    for case, fold, shift in (("a", 0, 0), ("b", 0, 1), ("c", 1, 2)):
        write(tmp_path / "labels" / f"{case}.nii.gz", heart())
        write(tmp_path / "model" / f"fold_{fold}" / "validation" / f"{case}.nii.gz", heart(shift=shift))
    return tmp_path / "model"


def evaluate(truths: Path, *arguments: str | Path) -> int:
    return main(["evaluate", str(truths), *map(str, arguments), "-np", "1", "--disable_progress_bar"])


def own_summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())["nnunet_ext"]


def folds_of(model: Path) -> list[Path]:
    return [model / f"fold_{fold}" / "validation" for fold in (0, 1)]


# --- folds ---


def test_folds_are_judged_together_and_over_their_means(model, tmp_path, capsys):
    """RV: over the cases (1 + 0.75 + 0.5)/3, over the folds (0.875 + 0.5)/2, pooled 2·(16 + 12 + 8)/(6·16)."""
    assert evaluate(tmp_path / "labels", *folds_of(model), "-o", tmp_path / "tables") == 0
    own = own_summary(tmp_path / "tables")
    assert own["structures"]["RV"]["dice"]["mean"] == pytest.approx(0.75)
    assert own["over_folds"]["structures"]["RV"]["dice"]["mean"] == pytest.approx(0.6875)
    assert own["pooled_dice"]["RV"] == pytest.approx(0.75)
    assert {name: fold["cases"] for name, fold in own["folds"].items()} == {"fold_0": 2, "fold_1": 1}
    with (tmp_path / "tables" / "case_metrics.csv").open(newline="") as file:
        assert [(row["case"], row["fold"]) for row in csv.DictReader(file)] == [
            ("a", "fold_0"), ("b", "fold_0"), ("c", "fold_1")
        ]  # fmt: skip
    printed = capsys.readouterr().out
    assert printed.startswith("3 cases of 2 folds, mean Dice 0.875 ")
    assert "Mean Dice over the folds 0.844 ± 0.133: fold_0 0.938 (2 cases), fold_1 0.750 (1 case)" in printed


def test_of_a_validation_folder_the_cases_that_are_there_are_judged(model, tmp_path, capsys):
    """a and b are of fold 0, c is of fold 1, d of a fold that is not trained."""
    write(tmp_path / "labels" / "d.nii.gz", heart())
    assert evaluate(tmp_path / "labels", folds_of(model)[0], "-o", tmp_path / "tables") == 0
    printed = capsys.readouterr()
    assert printed.out.count("2 of 4 with ground truth are left out") == 1
    assert not printed.err
    assert evaluate(tmp_path / "labels", *folds_of(model), "-o", tmp_path / "tables") == 0
    assert "1 of 4 with ground truth are left out" in capsys.readouterr().out


def test_a_case_of_a_validation_folder_without_a_truth_is_a_problem(model, tmp_path, capsys):
    write(folds_of(model)[0] / "x.nii.gz", heart())
    assert evaluate(tmp_path / "labels", folds_of(model)[0], "-o", tmp_path / "tables") == 1
    assert "x: There is a prediction but no ground truth" in capsys.readouterr().err


def test_cases_that_another_folder_lacks_are_missing(model, tmp_path, capsys):
    elsewhere = folds_of(model)[0].rename(tmp_path / "elsewhere")
    describe(elsewhere, LABELS)
    assert evaluate(tmp_path / "labels", elsewhere) == 1
    assert "c: There is no prediction of this case." in capsys.readouterr().err


def test_a_case_in_two_folds_is_refused(model, tmp_path, capsys):
    write(model / "fold_1" / "validation" / "b.nii.gz", heart())
    assert evaluate(tmp_path / "labels", *folds_of(model), "-o", tmp_path / "tables") == 1
    assert "b is in fold_0 and in fold_1" in capsys.readouterr().err
    assert not (tmp_path / "tables").exists()


def test_folds_need_a_place_for_their_tables(model, tmp_path, capsys):
    assert evaluate(tmp_path / "labels", *folds_of(model)) == 1
    assert "found 2 folders. Give a folder for the tables with -o" in capsys.readouterr().err


def test_folds_of_other_labels_are_refused(model, tmp_path, capsys):
    describe(model / "fold_1" / "validation", {"background": 0, "LV": 1, "RV": 2})
    assert evaluate(tmp_path / "labels", *folds_of(model), "-o", tmp_path / "tables") == 1
    assert "have the same labels" in capsys.readouterr().err


def test_two_cross_validations_are_compared_case_by_case(model, tmp_path):
    others = ["--compare", tmp_path / "other" / "0", "--compare", tmp_path / "other" / "1"]
    for case, fold in (("a", 0), ("b", 1), ("c", 1)):
        write(tmp_path / "other" / str(fold) / f"{case}.nii.gz", heart())
        describe(tmp_path / "other" / str(fold), LABELS)
    assert evaluate(tmp_path / "labels", *folds_of(model), "-o", tmp_path / "tables", *others) == 0
    found = own_summary(tmp_path / "tables")["comparison"]["first_minus_other"]["RV dice"]
    assert found["mean_difference"] == pytest.approx(-0.25)


# --- labels of another dataset ---


@pytest.fixture
def other_numbers(tmp_path: Path) -> Path:
    """The truth calls the left block 2 and the right one 1; its dataset says so."""
    folder = tmp_path / "Dataset" / "labelsTs"
    write(folder / "a.nii.gz", heart(rv=2, lv=1))
    describe(tmp_path / "Dataset", {"background": 0, "LV": 1, "RV": 2})
    write(tmp_path / "results" / "a.nii.gz", heart(shift=1))
    describe(tmp_path / "results", LABELS)
    return folder


@pytest.mark.parametrize("entries", [("1:2", "2:1"), ("LV:LV", "RV:RV")])
def test_a_truth_with_other_numbers_is_translated(entries, other_numbers, tmp_path):
    assert evaluate(other_numbers, tmp_path / "results", "--map-labels", *entries) == 0
    own = own_summary(tmp_path / "results")
    assert {name: found["dice"]["mean"] for name, found in own["structures"].items()} == {"RV": 0.75, "LV": 1}
    assert own["settings"]["map_labels"] == {"0": 0, "1": 2, "2": 1}


def test_a_label_that_the_map_leaves_out_is_named_with_its_case(other_numbers, tmp_path, capsys):
    assert evaluate(other_numbers, tmp_path / "results", "--map-labels", "1:2") == 1
    assert "a: --map-labels must name every label of the truth; it also contains 2." in capsys.readouterr().err


def test_an_unknown_label_is_refused_before_a_case_is_read(other_numbers, tmp_path, capsys):
    assert evaluate(other_numbers, tmp_path / "results", "--map-labels", "1:2", "7:1") == 1
    assert 'not "7" as a single label' in capsys.readouterr().err
    assert not (tmp_path / "results" / "summary.json").exists()
