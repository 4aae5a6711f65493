"""Which cases may judge a fold, and every reason to refuse one that its members were trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnunet_ext.calibration.held_out_cases import TrainedOnError, held_out_cases, read_splits

SPLITS = [{"train": ["c", "d", "e"], "val": ["b", "a"]}, {"train": ["a", "b"], "val": ["c", "d", "e"]}]


@pytest.fixture
def fold_folder(tmp_path: Path) -> Callable[..., Path]:
    """`fold_0` with files in its validation folder, and a record of its bootstrap if one is given."""

    def make(*validation: str, bootstrap: list[str] | None = None) -> Path:
        folder = tmp_path / "model" / "fold_0"
        (folder / "validation").mkdir(parents=True)
        for name in validation:
            (folder / "validation" / name).touch()
        if bootstrap is not None:
            (folder / "bootstrap.json").write_text(json.dumps({"seed": "0", "training_cases": bootstrap}))
        return folder

    return make


# --- cases that may judge ---


def test_a_fold_is_judged_by_its_validation_cases_in_order():
    assert held_out_cases(0, SPLITS, []) == ["a", "b"]
    assert held_out_cases("1", SPLITS, []) == ["c", "d", "e"]


def test_a_validation_folder_that_agrees_with_the_splits(fold_folder):
    """Other files, and a validation that was not finished, say nothing."""
    folder = fold_folder("a.nii.gz", "a.npz", "summary.json", "dataset.json", ".partial-c.nii.gz")
    assert held_out_cases(0, SPLITS, [folder]) == ["a", "b"]


def test_a_fold_that_was_not_validated_yet(tmp_path):
    assert held_out_cases(0, SPLITS, [tmp_path / "fold_0"]) == ["a", "b"]


def test_a_bootstrap_of_the_other_cases(fold_folder):
    assert held_out_cases(0, SPLITS, [fold_folder(bootstrap=["c", "c", "e"])]) == ["a", "b"]


def test_names_with_dots_are_whole_names(fold_folder):
    """`p.1` was validated; `p`, which was trained on, was not."""
    splits = [{"train": ["p", "p.2"], "val": ["p.1"]}]
    assert held_out_cases(0, splits, [fold_folder("p.1.nii.gz", "p.1.npz")]) == ["p.1"]


# --- refusals ---


def test_fold_all_was_trained_on_every_case():
    with pytest.raises(TrainedOnError, match=r"fold_all was trained on every case\. .*-f 0 1 2 3 4"):
        held_out_cases("all", SPLITS, [])


def test_a_validation_case_that_is_a_training_case_as_well():
    splits = [{"train": ["a", "b", "c"], "val": ["c", "d"]}]
    with pytest.raises(TrainedOnError, match="found 1, among them c, which the splits count to the training"):
        held_out_cases(0, splits, [])


@pytest.mark.parametrize("file", ["d.nii.gz", "d.npz"])
def test_a_validation_folder_that_contradicts_the_splits(fold_folder, file):
    """The fold once validated d: so these are not the splits of its training, and a may have been trained on."""
    folder = fold_folder("a.nii.gz", file)
    with pytest.raises(TrainedOnError, match=r"among them d, .*validation .*the splits were changed after"):
        held_out_cases(0, SPLITS, [folder])


def test_a_validation_folder_that_contradicts_the_splits_with_dots_in_names(fold_folder):
    splits = [{"train": ["p.2"], "val": ["p.1"]}]
    with pytest.raises(TrainedOnError, match=r"among them p\.2"):
        held_out_cases(0, splits, [fold_folder("p.2.nii.gz")])


def test_a_bootstrap_that_drew_a_validation_case(fold_folder):
    with pytest.raises(TrainedOnError, match=r"among them b, which .*bootstrap\.json counts to the training"):
        held_out_cases(0, SPLITS, [fold_folder(bootstrap=["c", "b"])])


def test_every_model_of_the_ensemble_is_asked(fold_folder, tmp_path):
    with pytest.raises(TrainedOnError, match="among them d"):
        held_out_cases(0, SPLITS, [tmp_path / "another" / "fold_0", fold_folder("d.nii.gz")])


def test_a_fold_that_the_splits_do_not_have():
    with pytest.raises(ValueError, match="folds 0 to 1; found fold 2"):
        held_out_cases(2, SPLITS, [])


def test_a_fold_without_validation_cases():
    with pytest.raises(ValueError, match=r"fold 0 of the splits has none\. Leave it out of -f"):
        held_out_cases(0, [{"train": ["a"], "val": []}], [])


# --- the file ---


def test_splits_are_read_as_nnunet_writes_them(tmp_path):
    (tmp_path / "splits_final.json").write_text(json.dumps(SPLITS))
    assert read_splits(tmp_path / "splits_final.json") == SPLITS


@pytest.mark.parametrize("content", [{"train": [], "val": []}, [{"train": ["a"]}], [["a"], ["b"]], "a", None])
def test_splits_of_another_form_are_refused(content: Any, tmp_path):
    (tmp_path / "splits.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'list of folds with "train" and "val"; .*splits\.json has another form'):
        read_splits(tmp_path / "splits.json")


def test_splits_that_are_no_json_are_refused(tmp_path):
    (tmp_path / "splits.json").write_text("train: a")
    with pytest.raises(ValueError, match=r"splits\.json has another form"):
        read_splits(tmp_path / "splits.json")


def test_missing_splits_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"splits_final\.json does not exist\. .*--splits"):
        read_splits(tmp_path / "splits_final.json")
