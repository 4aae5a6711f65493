"""What `nnunet_ext preprocess-unlabelled` refuses; an end-to-end test runs it and trains on the result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_ext.cli import main

PLANS = {
    "configurations": {
        "2d": {"data_identifier": "plans_2d", "normalization_schemes": ["ZScoreNormalization"], "architecture": {}},
        "3d_lowres": {
            "data_identifier": "plans_3d_lowres",
            "normalization_schemes": ["ZScoreNormalization"],
            "architecture": {},
        },
        "3d_cascade_fullres": {"inherits_from": "3d_lowres", "previous_stage": "3d_lowres"},
    },
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
}
DESCRIPTION = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command on a planned dataset without images; returns its exit status."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        (tmp_path / variable / "Dataset007_Tiny").mkdir(parents=True)
    (tmp_path / "nnUNet_raw" / "Dataset007_Tiny" / "dataset.json").write_text(json.dumps(DESCRIPTION))
    (tmp_path / "nnUNet_preprocessed" / "Dataset007_Tiny" / "nnUNetPlans.json").write_text(json.dumps(PLANS))
    return lambda *flags: main(["preprocess-unlabelled", "-d", "Dataset007_Tiny", *flags])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("-c", "2d"), "imagesUn; it does not exist"),
        (("-c", "2d", "-p", "others"), "others.json does not exist"),
        (("-c", "3d_fullres"), "2d, 3d_lowres, 3d_cascade_fullres; found 3d_fullres"),
        (("-c", "3d_cascade_fullres"), "the segmentations of 3d_lowres as well"),
        (("-c", "2d", "-npp", "0"), "-npp must be at least 1"),
    ],
)
def test_what_cannot_be_preprocessed_is_refused(flags, message, run, capsys):
    assert run(*flags) == 1
    assert message in capsys.readouterr().err


def test_images_of_other_plans_are_not_mixed(run, tmp_path, capsys):
    """A training would see labelled and unlabelled images at different spacings."""
    (tmp_path / "nnUNet_raw" / "Dataset007_Tiny" / "imagesUn").mkdir()
    (tmp_path / "nnUNet_raw" / "Dataset007_Tiny" / "imagesUn" / "a_0000.nii.gz").write_bytes(b"no image")
    folder = tmp_path / "nnUNet_preprocessed" / "Dataset007_Tiny"
    for _ in range(2):
        run("-c", "2d", "-npp", "1")
        (folder / "plans_2d_unlabelled" / "b.pkl").touch()
    assert "--overwrite" not in capsys.readouterr().err
    plans = {**PLANS, "transpose_forward": [1, 0, 2]}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    assert run("-c", "2d", "-npp", "1") == 1
    assert "Run it again with --overwrite" in capsys.readouterr().err
    run("-c", "2d", "-npp", "1", "--overwrite")
    assert "--overwrite" not in capsys.readouterr().err
