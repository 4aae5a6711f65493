"""`nnunet_ext weights`, from flags to the file, with tiny networks that were never trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.calibration.ensemble_weights import EnsembleWeights
from nnunet_ext.cli import build_parser, main
from nnunet_ext.cli.weights import weights_options
from nnunet_ext.cli.weights_flag import class_weights, model_weights
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.options import EnsembleOptions, WeightsOptions

DATASET = "Dataset998_Tiny"
CASES = ["p0_ed", "p0_es", "p1_ed", "p1_es"]
SPLITS = [{"train": CASES[2:], "val": CASES[:2]}, {"train": CASES[:2], "val": CASES[2:]}]


@pytest.fixture
def folders(make_model_folder: Callable[..., Path]) -> list[Path]:
    """Two models of two folds each, which differ in configuration."""
    return [
        make_model_folder("flat", folds=(0, 1)),
        make_model_folder("deep", configuration="3d_fullres", mirror_axes=(0, 1, 2), folds=(0, 1)),
    ]


@pytest.fixture
def dataset(
    folders: list[Path], make_image: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A raw dataset whose truth is what the first model says of each case that it held out, with its splits."""
    raw = tmp_path / "nnUNet_raw" / DATASET
    for number, case in enumerate(CASES):
        make_image(raw / "imagesTr", case, seed=number)
    (raw / "labelsTr").mkdir()
    for fold, split in enumerate(SPLITS):
        engine = EnsembleEngine.from_model_folders(
            folders[0], EnsembleOptions(folds=fold, device="cpu", allow_tqdm=False, tta="none")
        )
        files = [[str(raw / "imagesTr" / f"{case}_0000.nii.gz")] for case in split["val"]]
        for case, found in zip(split["val"], engine.predict_from_files(files, None).predictions, strict=True):
            label = sitk.GetImageFromArray(found.segmentation)
            label.CopyInformation(sitk.ReadImage(str(raw / "imagesTr" / f"{case}_0000.nii.gz")))
            sitk.WriteImage(label, str(raw / "labelsTr" / f"{case}.nii.gz"))
    splits = tmp_path / "nnUNet_preprocessed" / DATASET / "splits_final.json"
    splits.parent.mkdir(parents=True)
    splits.write_text(json.dumps(SPLITS))
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "nnUNet_preprocessed"))
    return raw


@pytest.fixture
def weights(folders: list[Path], dataset: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs the command; returns its exit status."""
    command = ["weights", *map(str, folders), "-o", str(tmp_path / "w.json")]
    return lambda *flags: main([*command, "-device", "cpu", "--disable_tta", "--disable_progress_bar", *flags])


def options_of(*flags: str) -> WeightsOptions:
    return weights_options(build_parser().parse_args(["weights", *flags]))


# --- from flags to the file, and to a prediction ---


def test_the_model_that_is_right_gets_the_weight_and_predict_takes_the_file(
    weights, folders, dataset, tmp_path, capsys
):
    assert weights("--patients", "(p[0-9])_") == 0
    file = tmp_path / "w.json"
    found = EnsembleWeights.load(file)
    assert found.models == ("flat", "deep")
    assert found.outputs == ("background", "left", "right")
    assert found.figures["models"][0] == {"left": 1.0, "right": 1.0}
    assert all(row[0] > 0.9 for row in found.figures["fitted"].values())
    assert (found.fitted_on["folds"], found.fitted_on["cases"], found.fitted_on["patients"]) == (["0", "1"], 4, 2)
    members = {(member["model"], member["name"]) for member in found.fitted_on["members"]}
    assert members == {(folder.name, f"fold_{fold}/checkpoint_final") for folder in folders for fold in (0, 1)}
    output = capsys.readouterr().out
    assert "model 1: flat" in output
    assert output.endswith(f"\nSaved to {file}\n")
    predict = ["predict", "-i", str(dataset / "imagesTr"), "-o", str(tmp_path / "out"), "-device", "cpu"]
    models = ["-m", str(folders[0]), "-m", str(folders[1]), "--weights", str(file)]
    assert main([*predict, *models, "--disable_tta", "--disable_progress_bar"]) == 0
    record = json.loads((tmp_path / "out" / "predict_args.json").read_text())
    assert record["ensemble"]["class_weights"] == found.sha256
    assert main([*predict, *models, "--disable_progress_bar"]) == 1
    assert "its tta is 'none', this ensemble's is 'flips'" in capsys.readouterr().err


def test_the_best_model_is_chosen(weights, tmp_path):
    assert weights("--best", "1", "--patients", "(p[0-9])_") == 0
    found = EnsembleWeights.load(tmp_path / "w.json")
    assert found.figures["fitted"]["left"] == [1.0, 0.0]
    assert found.fitted_on["best"] == 1


# --- leaks ---


def refused(status: int, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> str:
    assert status == 1
    assert not (tmp_path / "w.json").exists()
    return capsys.readouterr().err


def test_a_case_that_one_of_the_models_trained_on_is_refused(weights, folders, tmp_path, capsys):
    """The second model validated, in its fold 0, a case that the splits now list for training."""
    validated = folders[1] / "fold_0" / "validation" / f"{CASES[2]}.nii.gz"
    validated.parent.mkdir()
    validated.touch()
    message = refused(weights(), capsys, tmp_path)
    assert f"such as {CASES[2]}" in message
    assert "deep" in message


def test_a_patient_who_was_trained_on_is_refused(weights, tmp_path, capsys):
    file = tmp_path / "by_case.json"
    file.write_text(
        json.dumps([{"train": CASES[::2], "val": CASES[1::2]}, {"train": CASES[1::2], "val": CASES[::2]}])
    )
    message = refused(weights("--splits", str(file), "--patients", "(p[0-9])_"), capsys, tmp_path)
    assert "p0_es of p0, who has the case p0_ed" in message


def test_models_of_other_splits_are_refused(weights, folders, dataset, tmp_path, capsys):
    """The second model is of another dataset with the same cases, whose folds are the other way round."""
    plans = json.loads((folders[1] / "plans.json").read_text()) | {"dataset_name": "Dataset999_Turned"}
    (folders[1] / "plans.json").write_text(json.dumps(plans))
    (dataset.parent / "Dataset999_Turned").symlink_to(dataset)
    splits = tmp_path / "nnUNet_preprocessed" / "Dataset999_Turned" / "splits_final.json"
    splits.parent.mkdir()
    splits.write_text(json.dumps(SPLITS[::-1]))
    message = refused(weights(), capsys, tmp_path)
    assert "All models must hold out the same cases in a fold; in fold 0 flat and deep differ in 4" in message


# --- flags ---


def test_a_fold_that_only_one_model_has_is_left_out(weights, folders, tmp_path):
    (folders[1] / "fold_1" / "checkpoint_final.pth").unlink()
    assert weights() == 0
    assert EnsembleWeights.load(tmp_path / "w.json").fitted_on["folds"] == ["0"]


def test_models_without_a_common_fold_are_refused(weights, folders, tmp_path, capsys):
    (folders[0] / "fold_0" / "checkpoint_final.pth").unlink()
    (folders[1] / "fold_1" / "checkpoint_final.pth").unlink()
    assert "found flat: 1; deep: 0" in refused(weights(), capsys, tmp_path)


def test_the_defaults_of_the_flags_are_those_of_the_options():
    expected = WeightsOptions((Path("a"), Path("b")), Path("w.json"))
    assert options_of("a", "b", "-o", "w.json") == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pull": -1.0}, "pull to equal weights must be 0 or more; found -1.0"),
        ({"best": 3}, "from 1 to the 2 folders; found 3"),
        ({"best": 0}, "from 1 to the 2 folders; found 0"),
        ({"folders": (Path("x/a"), Path("y/a"))}, "different names; found a, a"),
        ({"ensemble": EnsembleOptions(average="logits")}, "weights of probabilities"),
        ({"ensemble": EnsembleOptions(model_weights=[1, 2])}, "models without weights"),
        ({"patients": "p[0-9]"}, "must have a group"),
    ],
)
def test_what_cannot_work_is_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        WeightsOptions(**({"folders": (Path("a"), Path("b")), "file": Path("w.json")} | fields))


def test_numbers_and_a_fitted_file_are_told_apart(tmp_path):
    file = tmp_path / "w.json"
    file.write_text(json.dumps({"kind": "ensemble weights"}))
    assert class_weights([str(file)]) == file
    assert model_weights([str(file)], ["a"]) is None
    file.write_text(json.dumps({"a": 2}))
    assert class_weights([str(file)]) is None
    assert model_weights([str(file)], ["a"]) == [2]
    assert class_weights(["1", "2"]) is None
    assert class_weights(None) is None
    assert np.allclose(model_weights(["1", "2"], ["a", "b"]), [1, 2])
