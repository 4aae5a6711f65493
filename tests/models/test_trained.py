"""The trained models of a dataset, listed from their folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_ext.cli import main
from nnunet_ext.models.named_folders import chosen_model_folders
from nnunet_ext.models.trained import TrainedModel, trained_models
from nnunet_ext.options import ModelChoice
from nnunet_ext.samples import Sample, add_to_manifest

DATASET = "Dataset027_ACDC"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models: one with a finished and an unfinished fold, samples and a calibration, one with nothing yet."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path))
    folder = tmp_path / DATASET
    cyclical = folder / "nnUNetTrainerCyclical__nnUNetPlans__2d"
    for fold, checkpoint in (("fold_0", "checkpoint_final.pth"), ("fold_1", "checkpoint_latest.pth")):
        (cyclical / fold).mkdir(parents=True)
        (cyclical / fold / checkpoint).touch()
    for epoch in (8, 9):
        add_to_manifest(cyclical / "fold_0", Sample(f"checkpoint_c0_e000{epoch}.pth", 0, epoch, epoch, 0.1, 0.9, "x"))
    (cyclical / "calibration.json").touch()
    (folder / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_0").mkdir(parents=True)
    (folder / "notes").mkdir()
    return folder


def test_folds_samples_and_calibration_of_each_model(results):
    cyclical, plain = trained_models(results)
    assert plain == TrainedModel(results / "nnUNetTrainer__nnUNetPlans__3d_fullres", (), (), 0, False)
    assert (cyclical.folds, cyclical.unfinished, cyclical.samples, cyclical.is_calibrated) == (
        ("0",),
        ("1",),
        2,
        True,
    )
    assert cyclical.flags == "-tr nnUNetTrainerCyclical -p nnUNetPlans -c 2d"


def test_a_dataset_without_a_folder_has_none(tmp_path):
    assert trained_models(tmp_path / "nowhere") == []


def test_the_command_prints_a_row_per_model(results, capsys):
    assert main(["models", "-d", DATASET]) == 0
    header, cyclical, plain = capsys.readouterr().out.splitlines()
    assert header.split() == ["model", "folds", "unfinished", "samples", "calibrated"]
    assert plain.split()[-4:] == ["-"] * 4
    assert cyclical.split()[-4:] == ["0", "1", "2", "yes"]


@pytest.mark.parametrize(
    ("choice", "first"),
    [
        (ModelChoice(dataset=DATASET, trainer="nnUNetTrainerCyclic", configuration="2d"), "nnUNetTrainerCyclical"),
        (ModelChoice(dataset=DATASET, configuration="3d_lowres"), "nnUNetTrainer -p nnUNetPlans -c 3d_fullres"),
    ],
)
def test_a_model_that_was_never_trained_is_refused_with_the_most_similar_ones(results, choice, first):
    with pytest.raises(FileNotFoundError, match=f"most similar first: -tr {first}"):
        chosen_model_folders(choice)


def test_a_trained_model_is_found(results):
    choice = ModelChoice(dataset=DATASET, trainer="nnUNetTrainerCyclical", configuration="2d")
    assert chosen_model_folders(choice) == [results / "nnUNetTrainerCyclical__nnUNetPlans__2d"]
