"""`nnunet_ext check`, from flags to table and exit status, on folders of small NIfTI files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile

from nnunet_ext.cli import main
from nnunet_ext.input_checks import Finding
from nnunet_ext.input_checks.text import finding_lines

NAME = "Dataset007_Heart"


def write(path: Path, spacing_mm: tuple[float, float, float] = (1, 2, 3)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(0).normal(100, 10, (6, 7, 8)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([*spacing_mm, 1])), path)
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def model(folder: Path, reader: str = "SimpleITKIO", **dataset_json: Any) -> Path:
    """A model folder without a checkpoint: for `check` two descriptions are enough."""
    folder.mkdir(parents=True)
    description = {"channel_names": {"0": "MR"}, "file_ending": ".nii.gz", **dataset_json}
    (folder / "dataset.json").write_text(json.dumps(description))
    (folder / "plans.json").write_text(json.dumps({"image_reader_writer": reader}))
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Cases a and b, both good."""
    for case in "ab":
        write(tmp_path / "images" / f"{case}_0000.nii.gz")
    return tmp_path / "images"


def check(images: Path, *flags: str) -> int:
    return main(["check", str(images), "--disable_progress_bar", *map(str, flags)])


def test_good_cases_have_status_0_and_one_line(images, tmp_path, capsys):
    assert check(images, "-m", model(tmp_path / "model")) == 0
    assert capsys.readouterr().out == f"2 good, 0 bad of 2 cases: {images}\n"


def test_a_bad_case_is_named_with_its_file_what_was_found_and_what_to_do(images, tmp_path, capsys):
    cut(images / "b_0000.nii.gz")
    assert check(images, "-m", model(tmp_path / "model")) == 1
    header, found, remedy, empty, last = capsys.readouterr().out.splitlines()
    assert header.split() == ["case", "file", "found,", "and", "what", "to", "do"]
    assert found.startswith("b     b_0000.nii.gz  a compressed stream that is truncated")
    assert "; expected a stream with its end and its checksum" in found
    assert remedy.strip() == "-> Copy or export the file again."
    assert remedy.index("->") == found.index("a compressed") == header.index("found")
    assert (empty, last) == ("", f"1 good, 1 bad of 2 cases: {images}")


def test_the_progress_bar_is_drawn_on_the_standard_error(images, tmp_path, capsys):
    folder = str(model(tmp_path / "model"))
    assert main(["check", str(images), "-m", folder]) == 0
    assert "2/2" in capsys.readouterr().err
    assert check(images, "-m", folder) == 0
    assert capsys.readouterr().err == ""


def test_files_that_became_no_case_are_named_after_the_result(images, tmp_path, capsys):
    (images / "c.nii.gz").touch()
    (images / "._a_0000.nii.gz").touch()
    assert check(images, "-m", model(tmp_path / "model")) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"2 good, 0 bad of 2 cases: {images}",
        "1 not taken, because images are named CASE_0000.nii.gz: c.nii.gz",
        "1 skipped as side files of macOS, such as ._a_0000.nii.gz",
    ]


def test_a_stack_without_its_spacing_is_said_to_count_as_1_mm(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for case in "ab":
        tifffile.imwrite(folder / f"{case}_0000.tif", np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6))
    (folder / "b.json").write_text(json.dumps({"spacing": [3, 0.5, 0.5]}))
    assert check(folder, "-m", model(tmp_path / "model", reader="Tiff3DIO", file_ending=".tif")) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"2 good, 0 bad of 2 cases: {folder}",
        "1 of 2 cases without a known spacing, which counts as 1 mm: there is no a.json beside a_0000.tif",
    ]


def test_the_segmentations_of_the_previous_stage_are_checked(images, tmp_path, capsys):
    previous = write(tmp_path / "low" / "a.nii.gz", (1, 2, 4))
    assert check(images, "-m", model(tmp_path / "model"), "-prev_stage_predictions", previous.parent) == 1
    printed = capsys.readouterr().out
    assert f"{previous}  " in printed  # a file of another folder is shown with it
    assert "the spacing (1, 2, 4); expected (1, 2, 3), as in a_0000.nii.gz" in printed
    assert "no such file; expected the segmentation of the previous stage under this name" in printed  # of b


def test_the_reader_of_the_plans_decides(images, tmp_path, capsys):
    voxels = np.random.default_rng(0).normal(size=(6, 7)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), images / "a_0000.nii.gz")
    assert check(images, "-m", model(tmp_path / "itk")) == 0
    assert check(images, "-m", model(tmp_path / "nibabel", reader="NibabelIO")) == 1
    assert "expected 3D, which the reader NibabelIO supports" in capsys.readouterr().out


def test_a_model_is_found_by_its_dataset(images, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    two_channels = {"0": "T1", "1": "T2"}
    model(tmp_path / "results" / NAME / "nnUNetTrainerSWA__nnUNetPlans__2d", channel_names=two_channels)
    assert check(images, "-d", NAME, "-tr", "nnUNetTrainerSWA", "-c", "2d") == 1


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_a_dataset_without_a_model_is_described_by_its_own_file(variable, images, tmp_path, monkeypatch, capsys):
    for other in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "datasets"))
    dataset = tmp_path / "datasets" / NAME
    dataset.mkdir(parents=True)
    two_channels = {"file_ending": ".nii.gz", "channel_names": {"0": "T1", "1": "T2"}}
    (dataset / "dataset.json").write_text(json.dumps(two_channels))
    assert check(images, "-d", NAME) == 1
    assert "-> Add a_0001.nii.gz." in capsys.readouterr().out


def test_the_number_of_a_dataset_is_enough(images, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    model(tmp_path / "raw" / NAME)
    assert check(images, "-d", "7") == 0


def test_the_reader_that_a_dataset_asks_for_is_meant(images, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    model(tmp_path / "raw" / NAME, overwrite_image_reader_writer="NibabelIO")
    write(images / "a_0000.nii.gz").rename(images / "plain.nii")
    (images / "a_0000.nii.gz").write_bytes(nibabel.load(images / "b_0000.nii.gz").to_bytes())  # SimpleITK reads it
    assert check(images, "-d", NAME) == 1


# --- what is refused, with status 1 and a message ---


def refusal(capsys: Any, images: Path, *flags: Any) -> str:
    assert check(images, *flags) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("nnunet_ext check: ")
    return printed.err


def test_a_folder_without_images_is_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "Images must be named CASE_0000.nii.gz" in refusal(
        capsys, tmp_path / "empty", "-m", model(tmp_path / "model")
    )


@pytest.mark.parametrize("flags", [[], ["-c", "2d"], ["-m", "model", "-d", "7"]])
def test_dataset_and_model_are_named_in_one_way(flags, images, capsys):
    assert "either by -m FOLDER or by -d DATASET" in refusal(capsys, images, *flags)


def test_a_folder_that_is_no_model_is_refused(images, tmp_path, capsys):
    message = refusal(capsys, images, "-m", tmp_path)
    assert f"{tmp_path / 'plans.json'} does not exist" in message
    assert "give -d alone" in message


def test_a_dataset_that_is_nowhere_is_refused(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    assert f"found none in {tmp_path / NAME}" in refusal(capsys, images, "-d", NAME)
    monkeypatch.delenv("nnUNet_raw")
    assert "both are unset" in refusal(capsys, images, "-d", NAME)


def test_models_that_take_other_files_are_refused(images, tmp_path, capsys):
    first, second = model(tmp_path / "one"), model(tmp_path / "two", file_ending=".mha")
    assert "All models must take the same files" in refusal(capsys, images, "-m", first, "-m", second)


def test_a_description_without_channels_is_refused(images, tmp_path, capsys):
    assert "must have at least one channel" in refusal(
        capsys, images, "-m", model(tmp_path / "model", channel_names={})
    )


def test_a_description_of_nnunet_v1_is_called_that(images, tmp_path, capsys):
    folder = model(tmp_path / "model")
    (folder / "dataset.json").write_text(json.dumps({"modality": {"0": "CT"}, "labels": {"0": "background"}}))
    message = refusal(capsys, images, "-m", folder)
    assert "dataset.json must have file_ending" in message
    assert "looks like a file of nnU-Net v1" in message


# --- the table, and what stands behind the command ---


def test_the_case_as_a_whole_has_a_dash_for_its_file():
    finding = Finding(None, "0 channels", "1", "Add it.")
    lines = finding_lines({"heart_01": [finding]}, Path("images"))
    assert lines[1].split() == ["heart_01", "-", "0", "channels;", "expected", "1"]


def test_a_check_that_falls_over_is_a_finding_of_that_case_alone(images, tmp_path, monkeypatch, capsys):
    def fall_over(files: tuple[Path, ...], **others: Any) -> list[Finding]:
        if files[0].name.startswith("a_"):
            raise ZeroDivisionError("of the check")
        return []

    monkeypatch.setattr("nnunet_ext.commands.check.check_case", fall_over)
    assert check(images, "-m", model(tmp_path / "model")) == 1
    printed = capsys.readouterr().out
    assert "files that cannot be checked (ZeroDivisionError: of the check)" in printed
    assert "1 good, 1 bad of 2 cases" in printed


def test_torch_is_not_imported():
    code = "import sys, nnunet_ext.commands.check; print('torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "False"
