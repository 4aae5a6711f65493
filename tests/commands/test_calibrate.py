"""`nnunet_ext calibrate`, from flags to the file, on a small raw dataset. What predicts is a stand-in.

The stand-in says what the truth is, shifted and with some doubt, so that nothing is trained and no network runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest

from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.cli import build_parser, main
from nnunet_ext.cli.calibrate import calibrate_options
from nnunet_ext.commands import calibrate as module
from nnunet_ext.commands import held_out_folds
from nnunet_ext.commands.calibrate import CaseCollector
from nnunet_ext.commands.held_out_folds import trained_folds
from nnunet_ext.commands.training_data import TrainingData
from nnunet_ext.inference.run import RunOutcome
from nnunet_ext.options import EnsembleOptions, FitOptions, OutputOptions
from nnunet_ext.prediction_folder.case_files import CasePrediction
from nnunet_ext.prediction_folder.cases import Case

NAME = "Dataset997_Small"
MODEL = "nnUNetTrainer__nnUNetPlans__2d"
SHAPE = (2, 8, 10)  # z, y, x
CASES = [f"p{number // 2:02}_{'es' if number % 2 else 'ed'}" for number in range(20)]  # 10 patients
SETTINGS = {"models": [MODEL], "members": "final"}


def truth_of(case: str) -> np.ndarray:
    values = np.zeros(SHAPE, np.uint8)
    values[:, 2:6, 2:6] = 1
    return values


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), np.eye(4)), path)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for nnUNet_raw with the dataset."""
    folder = tmp_path_factory.mktemp("raw")
    for case in CASES:
        write(folder / NAME / "imagesTr" / f"{case}_0000.nii.gz", np.zeros(SHAPE, np.float32))
        write(folder / NAME / "labelsTr" / f"{case}.nii.gz", truth_of(case))
    return folder


@pytest.fixture
def model(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder with two folds, and the splits of its training where nnU-Net keeps them."""
    monkeypatch.setenv("nnUNet_raw", str(raw))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "nnUNet_preprocessed"))
    monkeypatch.setattr(module, "prepare_process_for", lambda device: None)
    halves = CASES[:10], CASES[10:]
    splits = [{"train": halves[1 - fold], "val": halves[fold]} for fold in (0, 1)]
    (tmp_path / "nnUNet_preprocessed" / NAME).mkdir(parents=True)
    (tmp_path / "nnUNet_preprocessed" / NAME / "splits_final.json").write_text(json.dumps(splits))
    folder = tmp_path / MODEL
    for fold in (0, 1):
        (folder / f"fold_{fold}").mkdir(parents=True)
        (folder / f"fold_{fold}" / "checkpoint_final.pth").touch()
    description = {"labels": {"background": 0, "organ": 1}, "channel_names": {"0": "MRI"}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description))
    (folder / "plans.json").write_text(json.dumps({"dataset_name": NAME, "label_manager": "LabelManager"}))
    return folder


class StandIn:
    """Predicts the truth with 0.9, moved along x by the case's number modulo 4; the pairwise Dice tells how far."""

    opened: list[dict[str, Any]]
    broken: Sequence[str] = ()
    is_cascaded = False
    members_per_fold = 2

    def __init__(self, fold: Any) -> None:
        record = {"name": f"fold_{fold}/checkpoint_final", "sha256": f"hash of {fold}"}
        member = SimpleNamespace(record=lambda: record)
        stage = SimpleNamespace(previous_stage_name="3d_lowres")
        self.models = [
            SimpleNamespace(members=[member], is_cascaded=self.is_cascaded, folder=MODEL, configuration=stage)
        ]
        self.passes_per_case = self.members_per_fold
        self.settings = SETTINGS

    @classmethod
    def from_model_folders(cls, folders: Sequence[Path], options: EnsembleOptions, *, folds: list[Any]) -> StandIn:
        cls.opened.append({"folders": list(folders), "folds": list(folds), "members": options.members})
        return cls(folds[0])

    def predict_cases(self, cases: Sequence[Case], sink: CaseCollector, options: OutputOptions) -> RunOutcome:
        assert (options.maps, options.save_probabilities) == ((), True)
        report = RunOutcome()
        for case in cases:
            if case.name in self.broken:
                report.fail(case.name, RuntimeError("out of memory"))
                continue
            assert all(file.is_file() for file in case.files)
            shift = CASES.index(case.name) % 4
            segmentation = np.roll(truth_of(case.name), shift, axis=2)
            organ = np.where(segmentation == 1, 0.9, 0.1).astype(np.float32)
            row = {"pairwise_dice": 1 - shift / 4, "mean_entropy": 0.1, "flags": []}
            sink.write(CasePrediction(case.name, segmentation, {}, row, {}, np.stack([1 - organ, organ])))
            report.predicted.append(case.name)
        return report


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    kind = type("OwnStandIn", (StandIn,), {"opened": []})
    monkeypatch.setattr(held_out_folds, "EnsembleEngine", kind)
    return kind


@pytest.fixture
def calibrate(model: Path, stand_in: type[StandIn]) -> Callable[..., int]:
    """Runs the command; returns its exit status."""
    return lambda *flags: main(["calibrate", "-m", str(model), "-device", "cpu", "--disable_progress_bar", *flags])


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def arguments_of(*flags: str) -> Any:
    return build_parser().parse_args(["calibrate", *flags])


# --- from flags to the file ---


def test_every_fold_judges_its_own_validation_cases(calibrate, model, stand_in, capsys):
    """Shifts 0 to 3 of a square of 4: Dice 1, 0.75, 0.5 and 0.25; of 20 cases the 10 below 0.75 fail."""
    assert calibrate("--patients", "(p[0-9]+)_") == 0
    assert [entry["folds"] for entry in stand_in.opened] == [["0"], ["1"]]
    assert stand_in.opened[0]["members"] == "final"
    calibration = Calibration.load(model / "calibration.json")
    assert [case["case"] for case in calibration.cases] == CASES
    assert [case["dice"] for case in calibration.cases[:4]] == pytest.approx([1, 0.75, 0.5, 0.25])
    assert calibration.cases[0]["patient"] == "p00"
    assert calibration.settings == SETTINGS
    assert calibration.fitted_on["folds"] == ["0", "1"]
    assert calibration.fitted_on["members"] == [
        {"name": f"fold_{fold}/checkpoint_final", "sha256": f"hash of {fold}"} for fold in (0, 1)
    ]
    assert (calibration.fitted_on["cases"], calibration.fitted_on["patients"]) == (20, 10)
    assert calibration.confidence == "pairwise_dice"
    assert calibration.threshold.failures == 10
    assert calibration.mask.patients == 10
    # in the box of the truth 1, 3/4, 2/4 and 1/4 are right, 5/8 on the whole: ln(0.9/0.1)/T = ln(0.625/0.375)
    assert calibration.temperature.values == pytest.approx([np.log(9) / np.log(5 / 3)] * 2, rel=1e-3)
    output = capsys.readouterr().out
    assert "\nFitted on 20 cases of 10 patients, folds 0 1.\n" in output
    # accepted a quarter of the cases at a time: mean risks 0, 0.125, 0.25 and 0.375
    assert "\npairwise_dice         0.1406   1.000    -1.000  <- chosen\n" in output
    assert "10 of 20 cases fail (Dice below 0.75)." in output
    assert output.endswith(f"\nSaved to {model / 'calibration.json'}\n")


def test_flags_are_passed_on(calibrate, model, tmp_path, stand_in):
    file = tmp_path / "own.json"
    assert calibrate(
        "-f", "1", "--members", "best", "--failure-dice", "0.6", "--temperature", "per-class", "--confidence",
        "mean_entropy", "--miss-rate", "0.5", "-o", str(file),
    ) == 0  # fmt: skip
    assert not (model / "calibration.json").exists()
    assert (stand_in.opened[0]["folds"], stand_in.opened[0]["members"]) == ([1], "best")
    calibration = Calibration.load(file)
    assert [case["case"] for case in calibration.cases] == CASES[10:]
    assert calibration.fitted_on["patients"] == 10  # without a pattern each case is one
    assert (calibration.confidence, calibration.mask.alpha) == ("mean_entropy", 0.5)
    assert calibration.threshold.failure_dice == 0.6
    assert len(set(calibration.temperature.values)) == 2


def test_splits_can_be_given(calibrate, model, tmp_path):
    (tmp_path / "splits.json").write_text(
        json.dumps([{"train": [], "val": CASES[:6]}, {"train": [], "val": CASES[6:8]}])
    )
    assert calibrate("--splits", str(tmp_path / "splits.json")) == 0
    assert len(Calibration.load(model / "calibration.json").cases) == 8


# --- patients ---


@pytest.fixture
def torn(tmp_path: Path) -> str:
    """Splits by case: of every patient one frame is held out while the other one is trained on."""
    file = tmp_path / "by_case.json"
    halves = CASES[::2], CASES[1::2]
    file.write_text(json.dumps([{"train": halves[1 - fold], "val": halves[fold]} for fold in (0, 1)]))
    return str(file)


def test_patients_who_were_trained_on_cannot_judge(calibrate, torn, model, stand_in, capsys):
    assert calibrate("--splits", torn, "--patients", "(p[0-9]+)_") == 1
    error = capsys.readouterr().err
    assert "p00_ed of p00, who has the case p00_es" in error
    assert "nnunet_ext splits" in error
    assert stand_in.opened == []
    assert not (model / "calibration.json").exists()


def test_names_that_look_like_cases_of_one_patient_are_warned_about(calibrate, torn, caplog):
    """Nothing is known, so nothing is refused."""
    assert calibrate("--splits", torn) == 0
    (warning,) = warnings_of(caplog)
    assert "p00_ed and p00_es" in warning
    assert "--patients '(.+)[_-]'" in warning


def test_the_fold_that_is_predicted_is_named(calibrate, caplog):
    assert calibrate() == 0
    messages = [record.getMessage() for record in caplog.records if record.name == "nnunet_ext.progress"]
    assert messages == [f"fold {fold}: 10 held-out cases" for fold in (0, 1)]


def test_named_patients_are_not_warned_about(calibrate, caplog):
    assert calibrate("--patients", "(p[0-9]+)_") == 0
    assert not warnings_of(caplog)


# --- refusals ---


def test_a_case_that_cannot_be_predicted_ends_it(calibrate, model, stand_in, capsys):
    stand_in.broken = ["p03_es"]
    assert calibrate() == 1
    error = capsys.readouterr().err
    assert "nnunet_ext calibrate: Every validation case must be predicted; 1 of fold 0 failed: p03_es: " in error
    assert "out of memory" in error
    assert not (model / "calibration.json").exists()


def test_members_that_saw_a_case_never_run(calibrate, model, stand_in, capsys):
    """Fold 1 is refused before fold 0 is predicted."""
    write(model / "fold_1" / "validation" / "p00_ed.nii.gz", truth_of("p00_ed"))
    assert calibrate() == 1
    assert "such as p00_ed" in capsys.readouterr().err
    assert stand_in.opened == []


def test_fold_all_is_refused(calibrate, stand_in, capsys):
    assert calibrate("-f", "all") == 1
    assert "fold_all was trained on every case" in capsys.readouterr().err
    assert stand_in.opened == []


def test_one_patient_is_too_few(calibrate, tmp_path, capsys):
    (tmp_path / "splits.json").write_text(json.dumps([{"train": ["p01_ed"], "val": ["p00_ed", "p00_es"]}]))
    assert calibrate("--splits", str(tmp_path / "splits.json"), "-f", "0", "--patients", "(p[0-9]+)_") == 1
    assert "at least two patients; found 2 cases of 1." in capsys.readouterr().err


def test_a_case_that_the_dataset_lacks_is_named(calibrate, stand_in, tmp_path, capsys):
    (tmp_path / "splits.json").write_text(
        json.dumps([{"train": [], "val": ["gone"]}, {"train": [], "val": ["p00_ed"]}])
    )
    assert calibrate("--splits", str(tmp_path / "splits.json")) == 1
    assert "it has no gone. Give" in capsys.readouterr().err
    assert stand_in.opened == []


def test_a_first_stage_of_ours_that_contradicts_itself_is_refused(calibrate, stand_in, tmp_path, capsys):
    (tmp_path / "cases.csv").write_text("case,members\np00_ed,2\n")
    (tmp_path / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz"}))
    (tmp_path / "predict_args.json").write_text(json.dumps({"members": []}))
    assert calibrate("-prev_stage_predictions", str(tmp_path)) == 1
    assert "no segmentation of p00_ed" in capsys.readouterr().err
    assert stand_in.opened == []


def test_a_case_that_two_folds_hold_out_is_refused(calibrate, stand_in, tmp_path, capsys):
    """As `splits --cases` writes them: it would count twice, and on both sides of a left-out fold."""
    splits = [{"train": [], "val": CASES[:6]}, {"train": [], "val": CASES[5:8]}]
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    assert calibrate("--splits", str(tmp_path / "splits.json")) == 1
    assert f"{CASES[5]} is held out by fold 0 and fold 1. Choose folds" in capsys.readouterr().err
    assert stand_in.opened == []


def test_a_second_stage_without_the_first_is_refused_before_it_predicts(calibrate, stand_in, capsys):
    stand_in.is_cascaded = True
    stand_in.broken = CASES
    assert calibrate() == 1
    assert "needs the segmentations of 3d_lowres" in capsys.readouterr().err


def test_a_confidence_between_members_needs_two_before_it_predicts(calibrate, stand_in, capsys):
    stand_in.members_per_fold = 1
    stand_in.broken = CASES
    assert calibrate("--confidence", "pairwise_dice") == 1
    assert "compares members; found 1 per fold." in capsys.readouterr().err


def test_a_model_in_the_current_folder_has_its_name(model, stand_in, monkeypatch):
    monkeypatch.chdir(model)
    assert main(["calibrate", "-m", ".", "-device", "cpu", "--disable_progress_bar"]) == 0
    assert stand_in.opened[0]["folders"] == [model]


def test_the_folder_of_the_result_is_made(calibrate, tmp_path):
    assert calibrate("-o", str(tmp_path / "new" / "own.json")) == 0
    assert (tmp_path / "new" / "own.json").is_file()


def test_a_result_that_cannot_be_written_is_refused_before_anything_is_predicted(
    calibrate, stand_in, tmp_path, capsys
):
    (tmp_path / "file").touch()
    assert calibrate("-o", str(tmp_path / "file" / "own.json")) == 1
    assert f"The result must be written into {tmp_path / 'file'}" in capsys.readouterr().err
    assert stand_in.opened == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-f", "5"], "folds 0 to 1; found fold 5"),
        (["-f", "one"], "-f takes fold numbers"),
        (["--splits", "missing.json"], "missing.json does not exist"),
        (["-m", "another"], "needs a file name"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, message, calibrate, model, capsys):
    assert calibrate(*flags) == 1
    error = capsys.readouterr().err
    assert error.startswith("nnunet_ext calibrate: ")
    assert message in error
    assert not (model / "calibration.json").exists()


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_nnunets_folders_must_be_known_and_hold_the_dataset(variable, calibrate, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    assert calibrate() == 1
    assert "does not exist. Set nnUNet_" in capsys.readouterr().err
    monkeypatch.delenv(variable)
    assert calibrate() == 1
    assert f"{variable} must be set; it is not." in capsys.readouterr().err


def test_a_model_folder_must_hold_its_description(calibrate, model, capsys):
    (model / "plans.json").unlink()
    assert calibrate() == 1
    assert "A model folder must hold plans.json, dataset.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--confidence", "agreement"], "or auto; found 'agreement'"),
        (["--confidence", "predicted_dice"], "or auto; found 'predicted_dice'"),
        (["--recall", "2"], "recall must be above 0 and at most 1; found 2.0"),
        (["--failure-dice", "75"], "failure_dice must be above 0 and at most 1; found 75.0"),
        (["--level", "1"], "level must be above 0 and below 1; found 1.0"),
        (["--miss-rate", "10"], "miss_rate must be above 0 and below 1; found 10.0"),
        (["--miss-rate", "0.01"], "alpha must be at least 1/(n + 1)"),
        (["--patients", "(q[0-9]+)_"], 'finds no patient in "p05_ed"'),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_predicted(flags, message, calibrate, stand_in, capsys):
    assert calibrate(*flags) == 1
    assert message in capsys.readouterr().err
    assert stand_in.opened == []


# --- parts ---


def test_the_defaults_of_the_flags_are_those_of_the_fit():
    assert calibrate_options(arguments_of("-m", "model")).fit == FitOptions()
    flags = ["--temperature", "per-class", "--confidence", "mean_entropy", "--failure-dice", "0.5", "--recall", "0.8"]
    assert calibrate_options(
        arguments_of("-m", "model", *flags, "--level", "0.7", "--miss-rate", "0.2")
    ).fit == FitOptions("per-class", "mean_entropy", 0.5, 0.8, 0.7, 0.2)


def test_folds_with_members_are_found(model):
    (model / "fold_2").mkdir()  # its training did not finish
    assert trained_folds(model, "final") == ["0", "1"]


def test_a_case_has_the_name_that_the_splits_have_for_it(model):
    """Also where `dataset.json` lists files of other names, as nnU-Net allows."""
    file = model / "dataset.json"
    image, label = f"imagesTr/{CASES[0]}_0000.nii.gz", f"labelsTr/{CASES[0]}.nii.gz"
    listed = {"dataset": {"heart": {"images": [image], "label": label}}}
    file.write_text(json.dumps(json.loads(file.read_text()) | listed))
    data = TrainingData.open(model, None)
    case = data.case("heart", Path("first_stage"))
    assert case.name == "heart"
    assert [path.name for path in case.files] == [f"{CASES[0]}_0000.nii.gz"]
    assert case.previous_stage == Path("first_stage/heart.nii.gz")
    assert data.case("heart", None).previous_stage is None
