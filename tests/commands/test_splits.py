"""`nnunet_ext splits`, from flags to the file, on a raw dataset of empty files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_ext.calibration.held_out_cases import held_out_cases
from nnunet_ext.cli import main
from nnunet_ext.splits import read_splits

NAME = "Dataset996_Hearts"
PATIENT = "(p[0-9]+)_"
CASES = [f"p{patient:02}_{frame}" for patient in range(10) for frame in ("ed", "es")]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where nnU-Net looks for the splits; it does not exist yet."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    images = tmp_path / "nnUNet_raw" / NAME / "imagesTr"
    images.mkdir(parents=True)
    for case in CASES:
        for channel in (0, 1):
            (images / f"{case}_{channel:04}.nii.gz").touch()
    (images.parent / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz"}))
    return tmp_path / "nnUNet_preprocessed" / NAME / "splits_final.json"


@pytest.fixture
def splits(file: Path) -> Callable[..., int]:
    """Runs the command; returns its exit status."""
    return lambda *flags: main(["splits", "-d", NAME, "--patients", PATIENT, *flags])


@pytest.fixture
def by_case(file: Path) -> Path:
    """What nnU-Net writes by itself: fold 0 holds out one frame of p00, the other is trained on."""
    file.parent.mkdir()
    file.write_text(
        json.dumps([{"train": CASES[1:], "val": CASES[:1]}, {"train": CASES[2:], "val": CASES[:2]}]), encoding="utf-8"
    )
    return file


def test_splits_by_patient_are_written_where_nnunet_looks_for_them(splits, file, capsys):
    assert splits() == 0
    found = read_splits(file)
    assert len(found) == 5
    assert all(held_out_cases(fold, found, [], PATIENT) == found[fold]["val"] for fold in range(5))
    assert sorted(case for fold in found for case in fold["val"]) == CASES
    output = capsys.readouterr().out
    assert output.splitlines()[1].split() == ["0", "4", "2", "16", "8"]
    assert output.endswith(f"Saved to {file}\n")


def test_folds_and_seed_can_be_chosen(splits, file):
    assert splits("--folds", "2", "--seed", "1") == 0
    first = file.read_bytes()
    assert splits("--folds", "2", "--seed", "1", "--overwrite") == 0
    assert file.read_bytes() == first
    assert splits("--folds", "2", "--seed", "2", "--overwrite") == 0
    assert file.read_bytes() != first
    assert len(read_splits(file)) == 2


def test_a_dataset_may_be_named_by_its_number(file):
    assert main(["splits", "-d", "996", "--patients", PATIENT]) == 0
    assert file.is_file()


def test_cases_have_the_names_that_dataset_json_lists(splits, file, tmp_path):
    """As nnU-Net allows; the files may have other names."""
    listed = {f"{case}_x": {"images": [], "label": ""} for case in CASES}
    description = {"file_ending": ".nii.gz", "dataset": listed}
    (tmp_path / "nnUNet_raw" / NAME / "dataset.json").write_text(json.dumps(description))
    assert splits() == 0
    assert sorted(case for fold in read_splits(file) for case in fold["val"]) == sorted(listed)


def test_folds_are_balanced_in_the_column_of_a_table(splits, file, tmp_path):
    """p00 to p04 are healthy: with two folds 2 or 3 of the five are in each, with five folds one."""
    table = tmp_path / "patients.csv"
    rows = [f"{case},{'healthy' if case < 'p05' else 'ill'}" for case in CASES]
    table.write_text("\n".join(["case,group", *rows]))
    assert splits("--balance", f"{table}:group") == 0
    for fold in read_splits(file):
        assert sorted({case[:3] < "p05" for case in fold["val"]}) == [False, True]


# --- what is there ---


def test_splits_that_are_there_stay(splits, by_case, capsys):
    """Folds may have been trained with them; the message says what is wrong with them."""
    before = by_case.read_bytes()
    assert splits() == 1
    error = capsys.readouterr().err
    assert "--overwrite" in error
    assert "both sides of a fold in it: 1, such as p00 (p00_es is trained on while p00_ed is held out)" in error
    assert by_case.read_bytes() == before
    assert splits("--overwrite") == 0
    assert splits() == 1
    assert "No patient is on both sides" in capsys.readouterr().err


def test_check_names_the_patients_that_are_torn_apart(splits, by_case, capsys):
    before = by_case.read_bytes()
    assert splits("--check") == 1
    output = capsys.readouterr().out
    assert "fold 0: p00 is held out with p00_ed and trained on with p00_es" in output
    assert "fold 1:" not in output
    assert by_case.read_bytes() == before


def test_check_of_splits_by_patient_has_status_0(splits, capsys):
    assert splits() == 0
    capsys.readouterr()
    assert splits("--check") == 0
    assert "No patient is on both sides of a fold." in capsys.readouterr().out


# --- fewer training cases ---


def test_folds_with_fewer_training_cases_follow_those_that_are_there(splits, file, capsys):
    """Two folds of ten cases each; 4 and 6 of them are two and three patients."""
    assert splits("--folds", "2") == 0
    complete = read_splits(file)
    assert splits("--cases", "4") == 0
    assert "fold 2 is fold 0 with 4 of its 10 training cases" in capsys.readouterr().out
    assert splits("--cases", "6") == 0
    found = read_splits(file)
    assert found[:2] == complete
    assert [len(fold["train"]) for fold in found] == [10, 10, 4, 4, 6, 6]
    for fold, full in ((2, 0), (3, 1), (4, 0), (5, 1)):
        assert found[fold]["val"] == found[full]["val"]
    assert set(found[2]["train"]) < set(found[4]["train"]) < set(found[0]["train"])
    assert held_out_cases(4, found, [], PATIENT) == complete[0]["val"]


def test_folds_that_are_there_are_not_added_again(splits, file):
    assert splits("--cases", "4") == 0
    before = file.read_bytes()
    assert len(read_splits(file)) == 10  # the cross-validation was not there either
    assert splits("--cases", "4") == 0
    assert file.read_bytes() == before


@pytest.mark.parametrize("flags", [("--folds", "4"), ("--balance", "no_such.csv:x")])
def test_flags_of_new_splits_do_not_apply_to_those_that_are_there(flags, splits, capsys):
    assert splits() == 0
    assert splits("--cases", "6", *flags) == 1
    assert "--folds and --balance make new splits" in capsys.readouterr().err


def test_splits_by_case_get_no_subsets_by_patient(splits, by_case, capsys):
    before = by_case.read_bytes()
    assert splits("--cases", "4") == 1
    assert "need splits by patient" in capsys.readouterr().err
    assert by_case.read_bytes() == before


# --- refusals ---


def test_there_must_be_splits_to_check(splits, capsys):
    assert splits("--check") == 1
    assert "splits_final.json does not exist. nnU-Net writes it, by case" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--folds", "11"], "found 11 folds and 10 patients"),
        (["--folds", "1"], "at least 2 folds; found 1"),
        (["--cases", "0"], "at least 1 training case; found --cases 0"),
        (["--cases", "17"], "all of its 16 training cases; found 17"),
        (["--patients", "(q)"], 'finds no patient in "p00_ed"'),
        (["--balance", "group"], "takes FILE:COLUMN, such as patients.csv:group; found 'group'"),
        (["--balance", "{folder}/table.csv:centre"], "must have the column centre; it has group"),
        (["--balance", "{folder}/table.csv:group"], "19 have none, such as p00_es"),
        (["-d", "Dataset001_Gone"], "Dataset001_Gone does not exist. Set nnUNet_raw"),
    ],
)
def test_what_cannot_be_split_is_refused(flags, message, splits, file, tmp_path, capsys):
    (tmp_path / "table.csv").write_text("case,group\np00_ed,ill\n")
    assert splits(*[flag.replace("{folder}", str(tmp_path)) for flag in flags]) == 1
    assert message in capsys.readouterr().err
    assert not file.exists()


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_nnunets_folders_must_be_set(variable, splits, monkeypatch, capsys):
    monkeypatch.delenv(variable)
    assert splits() == 1
    assert f"{variable} must be set; it is not." in capsys.readouterr().err


def test_a_raw_dataset_without_description_or_cases_is_refused(splits, tmp_path, capsys):
    description = tmp_path / "nnUNet_raw" / NAME / "dataset.json"
    description.write_text(json.dumps({"file_ending": ".png"}))
    assert splits() == 1
    assert "found none" in capsys.readouterr().err
    description.write_text("{}")
    assert splits() == 1
    assert "must have file_ending" in capsys.readouterr().err
    description.unlink()
    assert splits() == 1
    assert "must hold dataset.json" in capsys.readouterr().err
