"""Which cases may judge a fold, and every reason to refuse one that its members were trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_ext.calibration.held_out_cases import TrainedOnError, held_out_cases

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
    with pytest.raises(TrainedOnError, match="found 1, such as c, which the splits list for training fold 0"):
        held_out_cases(0, splits, [])


@pytest.mark.parametrize("file", ["d.nii.gz", "d.npz"])
def test_a_validation_folder_that_contradicts_the_splits(fold_folder, file):
    """The fold once validated d: so these are not the splits of its training, and a may have been trained on."""
    folder = fold_folder("a.nii.gz", file)
    with pytest.raises(TrainedOnError, match=r"such as d, .*validation .*the splits were changed after"):
        held_out_cases(0, SPLITS, [folder])


def test_a_validation_folder_that_contradicts_the_splits_with_dots_in_names(fold_folder):
    splits = [{"train": ["p.2"], "val": ["p.1"]}]
    with pytest.raises(TrainedOnError, match=r"such as p\.2"):
        held_out_cases(0, splits, [fold_folder("p.2.nii.gz")])


def test_a_bootstrap_that_drew_a_validation_case(fold_folder):
    with pytest.raises(TrainedOnError, match=r"such as b, which .*bootstrap\.json lists for training"):
        held_out_cases(0, SPLITS, [fold_folder(bootstrap=["c", "b"])])


def test_every_model_of_the_ensemble_is_asked(fold_folder, tmp_path):
    with pytest.raises(TrainedOnError, match="such as d"):
        held_out_cases(0, SPLITS, [tmp_path / "another" / "fold_0", fold_folder("d.nii.gz")])


def test_a_fold_that_the_splits_do_not_have():
    with pytest.raises(ValueError, match="folds 0 to 1; found fold 2"):
        held_out_cases(2, SPLITS, [])


def test_a_fold_without_validation_cases():
    with pytest.raises(ValueError, match=r"fold 0 of the splits has none\. Leave it out of -f"):
        held_out_cases(0, [{"train": ["a"], "val": []}], [])


# --- patients ---

FRAMES = {"train": ["p1_es", "p2_ed", "p2_es", "p3_ed"], "val": ["p1_ed", "p3_es", "p4_ed"]}
PATIENT = "(p[0-9])_"


def test_a_validation_case_of_a_patient_who_was_trained_on_is_refused():
    """Both frames of a heart look alike: p1 and p3 are on both sides."""
    with pytest.raises(TrainedOnError) as refused:
        held_out_cases(0, [FRAMES], [], PATIENT)
    message = str(refused.value)
    assert "2 of 3 validation cases are from patients with training cases" in message
    assert "p1_ed of p1, who has the case p1_es, which the splits list for training fold 0" in message
    assert "nnunet_ext splits -d ID --patients '(p[0-9])_' --overwrite" in message


def test_where_patients_are_not_known_each_case_is_one():
    assert held_out_cases(0, [FRAMES], []) == ["p1_ed", "p3_es", "p4_ed"]


def test_splits_by_patient_are_accepted():
    splits = [{"train": ["p2_ed", "p2_es"], "val": ["p1_es", "p1_ed"]}]
    assert held_out_cases(0, splits, [], PATIENT) == ["p1_ed", "p1_es"]


def test_a_bootstrap_that_drew_another_case_of_a_patient(fold_folder):
    """The splits were changed since: today they train on p2 only."""
    splits = [{"train": ["p2_ed"], "val": ["p1_ed"]}]
    folder = fold_folder(bootstrap=["p2_ed", "p1_es"])
    with pytest.raises(TrainedOnError, match=r"p1_ed of p1, who has the case p1_es, which .*bootstrap\.json lists"):
        held_out_cases(0, splits, [folder], PATIENT)


@pytest.mark.parametrize("split", [{"train": ["x"], "val": ["p1_ed"]}, {"train": ["p1_ed"], "val": ["x"]}])
def test_a_pattern_must_fit_training_and_validation_cases(split):
    with pytest.raises(ValueError, match='finds no patient in "x"'):
        held_out_cases(0, [split], [], PATIENT)
