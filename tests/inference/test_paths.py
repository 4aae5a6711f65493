"""Folders and cases with blanks, accents and other scripts, and paths far longer than Windows' old limit."""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path

import pytest

from nnunet_ext.cli import main
from nnunet_ext.prediction_folder.case_table import read_cases

NAMES = ["Herz für Ärzte", "心臓 の 画像", "a 'quoted' (case), with #%&= signs"]


@pytest.fixture
def predict(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)

    def run(images: Path, folder: Path, output: Path) -> int:
        return main(
            ["predict", "-i", str(images), "-o", str(output), "-m", str(folder), "-device", "cpu",
             "--disable_progress_bar", "--save_probabilities", "--save_members"]
        )  # fmt: skip

    return run


@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_script_are_predicted(predict, make_model_folder, make_image, tmp_path, name):
    images = make_image(tmp_path / name / "images", name, shape_zyx=(2, 20, 20))
    folder = make_model_folder(f"{name} model/nnUNetTrainer__nnUNetPlans__2d")
    output = tmp_path / name / "out"
    assert predict(images, folder, output) == 0
    assert [row["case"] for row in read_cases(output / "cases.csv")] == [name]
    for file in (f"{name}.nii.gz", f"maps/entropy/{name}.nii.gz", f"{name}.npz"):
        assert (output / file).is_file()


@pytest.mark.skipif(os.name == "nt", reason="Windows refuses such paths unless long paths are switched on")
def test_paths_of_a_thousand_characters_are_predicted(predict, make_model_folder, make_image, tmp_path):
    deep = tmp_path.joinpath(
        *["a folder name of some fifty characters, and no less"] * (14 if sys.platform == "darwin" else 20)
    )
    assert len(str(deep)) > 700
    case = "a" * 200
    images = make_image(deep / "images", case, shape_zyx=(2, 20, 20))
    model = deep / "nnUNetTrainer__nnUNetPlans__2d"
    shutil.copytree(make_model_folder(), model)
    assert predict(images, model, deep / "out") == 0
    assert (deep / "out" / f"{case}.nii.gz").is_file()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux file systems: 255 bytes a name")
def test_a_case_whose_name_leaves_no_room_for_a_temporary_one_fails_alone_by_name(
    predict, make_model_folder, make_image, tmp_path, capsys
):
    # CASE_0000.nii.gz has 252 characters; .partial-CASE.nii.gz would have 256.
    images = make_image(tmp_path / "images", "a" * 240, shape_zyx=(2, 20, 20))
    make_image(images, "b", shape_zyx=(2, 20, 20))
    assert predict(images, make_model_folder(), tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "1 predicted, 1 failed" in printed.out
    assert f"{'a' * 240}: OSError: [Errno 36] File name too long" in printed.err
    assert [row["case"] for row in read_cases(tmp_path / "out" / "cases.csv")][-1] == "b"


def test_messages_reach_a_console_that_lacks_the_characters(predict, make_model_folder, tmp_path, monkeypatch):
    # as Windows gives a program whose output goes into a file
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="cp1252") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    assert predict(tmp_path / "画像", make_model_folder(), tmp_path / "out") == 1
    streams["stderr"].flush()
    written = streams["stderr"].buffer.getvalue().decode("cp1252")
    assert r"\u753b\u50cf does not" in written
