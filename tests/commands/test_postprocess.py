"""`nnunet_ext postprocess`, from flags to the file, on a small raw dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunet_ext.cli import main
from nnunet_ext.cli.postprocess import relabel_pairs
from nnunet_ext.options import EnsembleOptions, ModelChoice, PostprocessOptions
from nnunet_ext.postprocessing.chain import PostProcessing
from nnunet_ext.postprocessing.minimum_size import MinimumSize

NAME = "Dataset996_Specks"
SHAPE = (2, 8, 10)  # z, y, x
CASES = [f"p{number // 2:02}_{'es' if number % 2 else 'ed'}" for number in range(12)]  # 6 patients
LABELS = {"background": 0, "organ": 1}
BY_PATIENT = ("--patients", "(p[0-9]+)_")


def truth() -> np.ndarray:
    values = np.zeros(SHAPE, np.uint8)
    values[:, 2:6, 2:6] = 1
    return values


def predicted() -> np.ndarray:
    """The truth, and a speck of one voxel."""
    values = truth()
    values[0, 0, 9] = 1
    return values


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), np.eye(4)), path)


def write_splits(folder: Path, *folds: tuple[list[str], list[str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = [{"train": train, "val": val} for train, val in folds]
    (folder / "splits_final.json").write_text(json.dumps(content))


@pytest.fixture
def preprocessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nnU-Net's folders; returns that of the splits, two folds by patient."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    for case in CASES:
        write(tmp_path / "raw" / NAME / "imagesTr" / f"{case}_0000.nii.gz", np.zeros(SHAPE, np.float32))
        write(tmp_path / "raw" / NAME / "labelsTr" / f"{case}.nii.gz", truth())
    folder = tmp_path / "preprocessed" / NAME
    write_splits(folder, (CASES[6:], CASES[:6]), (CASES[:6], CASES[6:]))
    return folder


@pytest.fixture
def model(preprocessed: Path, tmp_path: Path) -> Path:
    """A model folder of stock nnU-Net with what its training predicted for the validation cases of two folds."""
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__2d"
    for number, case in enumerate(CASES):
        write(folder / f"fold_{number // 6}" / "validation" / f"{case}.nii.gz", predicted())
    for fold in (0, 1):
        (folder / f"fold_{fold}" / "checkpoint_final.pth").touch()
    description = {"labels": LABELS, "channel_names": {"0": "MRI"}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description))
    (folder / "plans.json").write_text(json.dumps({"dataset_name": NAME, "label_manager": "LabelManager"}))
    return folder


@pytest.fixture
def postprocess(model: Path) -> Callable[..., int]:
    """Runs the command on the validation folders; returns its exit status."""
    return lambda *flags: main(["postprocess", "-m", str(model), "--from-validation", *flags])


def chosen(model: Path) -> PostProcessing:
    return PostProcessing.load(model / "postprocess.json")


# --- validation folders ---


def test_what_helps_on_the_validation_cases_is_saved_in_the_model_folder(postprocess, model, capsys):
    """The speck is removed by the smallest volume above 1 mm³; Dice 64/65 becomes 1. Then nothing else helps."""
    assert postprocess(*BY_PATIENT) == 0
    found = chosen(model)
    assert found.steps == (MinimumSize("organ", (1,), 0, 3.0, keep_largest=True),)
    assert found.dataset == {"labels": LABELS}
    assert found.fitted_on == {
        "folds": ["0", "1"], "members": [], "source": "validation folders", "probabilities": False,
        "cases": 12, "patients": 6,
    }  # fmt: skip
    assert found.report["dice"] == pytest.approx(64 / 65)
    assert found.report["together"]["gain"] == pytest.approx(1 / 65)
    output = capsys.readouterr().out
    assert "Chosen on 12 cases of 6 patients, folds 0 1; mean Dice 0.9846." in output
    assert "need probabilities and were not tried" in output
    assert output.endswith(f"\nSaved to {model / 'postprocess.json'}\n")


def test_every_candidate_is_listed_kept_or_not(postprocess, model):
    assert postprocess() == 0
    candidates = chosen(model).report["candidates"]
    assert [(one["step"]["operation"], one["kept"]) for one in candidates] == [
        ("minimum_size", True),
        ("largest_component", False),
        ("fill_holes", False),
    ]
    assert all({"gain", "low", "high", "level", "changed"} <= set(one) for one in candidates)


def test_operations_and_folds_can_be_chosen(postprocess, tmp_path, model):
    file = tmp_path / "own.json"
    assert postprocess("--operations", "largest_component", "-f", "1", "-o", str(file)) == 0
    found = PostProcessing.load(file)
    assert [one["step"]["operation"] for one in found.report["candidates"]] == ["largest_component"]
    assert found.fitted_on["folds"] == ["1"]
    assert not (model / "postprocess.json").exists()


def test_probabilities_are_used_if_every_case_has_them(postprocess, model):
    organ = predicted() * 0.9
    for number, case in enumerate(CASES):
        file = model / f"fold_{number // 6}" / "validation" / f"{case}.npz"
        np.savez(file, probabilities=np.stack([1 - organ, organ]).astype(np.float32))
    assert postprocess() == 0
    assert chosen(model).report["candidates"][0]["step"]["operation"] == "hysteresis"
    file.unlink()
    assert postprocess() == 0
    assert not chosen(model).fitted_on["probabilities"]


def test_a_case_that_is_missing_is_named(postprocess, model, capsys):
    (model / "fold_1" / "validation" / f"{CASES[7]}.nii.gz").unlink()
    assert postprocess() == 1
    assert f"{CASES[7]}.nii.gz does not exist. Run nnUNetv2_train with --val" in capsys.readouterr().err


# --- predicted cases ---


def test_cases_are_predicted_by_the_members_of_their_fold(preprocessed, make_model_folder, make_image, tmp_path):
    """A tiny network with random weights; what is chosen does not matter here, only that probabilities are there."""
    folder = make_model_folder(folds=(0, 1), labels=LABELS)
    plans = json.loads((folder / "plans.json").read_text())
    (folder / "plans.json").write_text(json.dumps(plans | {"dataset_name": NAME}))
    for number, case in enumerate(CASES):
        make_image(tmp_path / "raw" / NAME / "imagesTr", case, shape_zyx=SHAPE, seed=number)
    write_splits(preprocessed, (CASES[4:], CASES[:2]), (CASES[:4], CASES[4:6]))
    flags = ["-m", str(folder), "-device", "cpu", "--disable_progress_bar"]
    assert main(["postprocess", *flags, "--operations", "hysteresis", "fill_holes"]) == 0
    found = chosen(folder)
    assert found.fitted_on["source"] == "predicted"
    assert [member["name"] for member in found.fitted_on["members"]] == [
        "fold_0/checkpoint_final",
        "fold_1/checkpoint_final",
    ]
    assert [one["step"]["operation"] for one in found.report["candidates"]] == ["hysteresis", "fill_holes"]
    assert found.settings["members"] == "final"


# --- what is refused ---


def test_a_patient_who_was_trained_on_cannot_judge(postprocess, preprocessed, model, capsys):
    """Planted: one frame of p00 is trained on in fold 0, the other one is validated."""
    write_splits(preprocessed, (["p00_es", *CASES[6:]], ["p00_ed", *CASES[2:6]]), (CASES[:6], CASES[6:]))
    (model / "fold_0" / "validation" / "p00_es.nii.gz").unlink()
    assert postprocess(*BY_PATIENT) == 1
    assert "p00_ed of p00, who has the case p00_es" in capsys.readouterr().err
    assert not (model / "postprocess.json").exists()


def test_a_case_that_was_trained_on_cannot_judge(postprocess, preprocessed, model, capsys):
    """Planted: the splits were changed after the training, whose validation folder still has the case."""
    write_splits(preprocessed, (CASES[5:], CASES[:5]), (CASES[:6], CASES[6:]))
    assert postprocess() == 1
    assert f"such as {CASES[5]}" in capsys.readouterr().err
    assert not (model / "postprocess.json").exists()


def test_fold_all_is_refused(postprocess, capsys):
    assert postprocess("-f", "all") == 1
    assert "fold_all was trained on every case" in capsys.readouterr().err


def test_one_patient_is_too_few(postprocess, preprocessed, capsys):
    write_splits(preprocessed, (CASES[6:], CASES[:2]))
    assert postprocess("-f", "0", *BY_PATIENT) == 1
    assert "at least two patients; found 2 cases of 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [("--members", "best"), ("--tta-members",), ("--disable_tta",), ("-step_size", "0.3")]
)
def test_validation_folders_are_of_the_final_checkpoint(postprocess, flags, capsys):
    assert postprocess(*flags) == 1
    assert "Leave out --from-validation" in capsys.readouterr().err


def test_validation_folders_are_of_one_model(model, capsys):
    assert main(["postprocess", "-m", str(model), "-m", str(model), "--from-validation", "-o", "a.json"]) == 1
    assert "of one model; found 2" in capsys.readouterr().err


def test_options_that_contradict_themselves_are_refused():
    choice = ModelChoice(folders=(Path("model"),))
    with pytest.raises(ValueError, match="An operation must be one of hierarchy"):
        PostprocessOptions(choice, operations=["erode"])
    with pytest.raises(ValueError, match="raw segmentations"):
        PostprocessOptions(choice, EnsembleOptions(postprocess=True))
    with pytest.raises(ValueError, match="with a colon between"):
        relabel_pairs(["enhancing"])
    assert relabel_pairs(["enhancing:necrosis"]) == [("enhancing", "necrosis")]
