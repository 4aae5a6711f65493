"""Folds of a cross-validation: names, cases that are in two of them, and means over the folds by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from nnunet_ext.evaluation.folds import by_fold, fold_names, fold_of_cases, fold_summary
from nnunet_ext.evaluation.overlap_counts import OverlapCounts
from nnunet_ext.evaluation.results import CaseEvaluation, FolderEvaluation

NAN = math.nan


def case(name: str, fold: str, dice: float, hd95_mm: float = NAN) -> CaseEvaluation:
    """`dice` of ten tenths: as many true positives as tenths, the rest missed and made up alike."""
    right = round(10 * dice)
    counts = {"LV": OverlapCounts(tp=right, fp=10 - right, fn=10 - right, tn=0)}
    figures = {"mean_dice": dice, "end_slice_dice_paper": dice}
    return CaseEvaluation(name, {"LV": {"dice": dice, "hd95_mm": hd95_mm}}, figures, {}, counts=counts, fold=fold)


def test_a_fold_of_nnunet_has_the_name_of_its_folder():
    assert fold_names([Path("model/fold_0/validation"), Path("model/fold_1/validation")]) == ["fold_0", "fold_1"]
    assert fold_names([Path("first"), Path("second")]) == ["first", "second"]


def test_folders_of_the_same_name_are_told_apart_by_their_paths():
    folders = [Path("a/fold_0/validation"), Path("b/fold_0/validation")]
    assert fold_names(folders) == [str(folder) for folder in folders]


def test_a_folder_that_is_given_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Each fold may be given once"):
        fold_names([tmp_path / "fold", tmp_path / "other" / ".." / "fold"])


def test_a_case_in_two_folds_is_refused_with_both():
    with pytest.raises(ValueError, match="patient_2 is in fold_0 and in fold_1"):
        fold_of_cases({"fold_0": ["patient_1", "patient_2"], "fold_1": ["patient_2"]})


def test_without_folds_there_is_no_part_about_them():
    evaluation = FolderEvaluation({"LV": (1,)}, [case("a", "", 0.5)])
    assert by_fold(evaluation) == {}
    assert fold_summary(evaluation, end_threshold=0.8) == {}


def test_means_over_the_folds_are_not_means_over_the_cases():
    """Fold 0 has (1 + 0.8)/2 = 0.9, pooled, too, and fold 1 has 0.3: 0.6 ± 0.6/√2. Over all cases it would be 0.7.

    Above 0.85 are one of two cases of fold 0 and none of fold 1. A distance is defined in fold 0 only.
    """
    cases = [case("a", "fold_0", 1.0, 2.0), case("b", "fold_0", 0.8, 4.0), case("c", "fold_1", 0.3)]
    found = fold_summary(FolderEvaluation({"LV": (1,)}, cases), end_threshold=0.85)
    assert {name: (fold["cases"], fold["case_figures"]["mean_dice"]) for name, fold in found["folds"].items()} == {
        "fold_0": (2, pytest.approx(0.9)),
        "fold_1": (1, pytest.approx(0.3)),
    }
    over = found["over_folds"]
    expected = {"mean": 0.6, "std": 0.6 / math.sqrt(2), "folds": 2}
    assert over["structures"]["LV"]["dice"] == pytest.approx(expected)
    assert over["case_figures"]["mean_dice"] == pytest.approx(expected)
    assert over["pooled_dice"]["LV"] == pytest.approx(expected)
    assert over["structures"]["LV"]["hd95_mm"] == pytest.approx({"mean": 3, "std": NAN, "folds": 1}, nan_ok=True)
    assert over["end_coefficient"]["paper"] == pytest.approx({"mean": 0.25, "std": 0.5 / math.sqrt(2), "folds": 2})
