"""The worker's part with a network: the same files as `nnunet_ext predict`, and what it refuses."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
import SimpleITK as sitk

from nnunet_ext import cli
from nnunet_ext.commands.serve import loaded_predictor
from nnunet_ext.options import EnsembleOptions, ModelChoice, OutputOptions, ServeOptions, ServerLimits
from nnunet_ext.prediction_folder.case_table import read_cases
from nnunet_ext.serving.refusal import Refusal

MAPS = ("entropy", "mutual_information")


@pytest.fixture
def load(make_model_folder):
    """`load(**limits)`: the predictor of a model with two folds, and the model's folder."""

    def predictor(**limits):
        folder = make_model_folder(folds=(0, 1))
        options = ServeOptions(
            model=ModelChoice(folders=(folder,)),
            ensemble=EnsembleOptions(device="cpu", allow_tqdm=False),
            output=OutputOptions(maps=MAPS),
            limits=ServerLimits(**limits),
        )
        return loaded_predictor(options), folder

    return predictor


def entries(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        return {name: zipped.read(name) for name in zipped.namelist()}


def test_the_result_holds_what_predict_writes_byte_for_byte(load, make_image, tmp_path):
    predictor, model = load()
    images = make_image(tmp_path / "images")
    arguments = ["-i", images, "-o", tmp_path / "out", "-m", model, "-device", "cpu", "--maps", *MAPS]
    assert cli.main(["predict", "--disable_progress_bar", *map(str, arguments)]) == 0

    predictor(images, tmp_path / "result.zip")
    found = entries((tmp_path / "result.zip").read_bytes())
    assert sorted(found) == [
        "case.nii.gz", "maps/entropy/case.nii.gz", "maps/mutual_information/case.nii.gz", "row.json",
    ]  # fmt: skip
    row = json.loads(found.pop("row.json"))
    assert {name: (tmp_path / "out" / name).read_bytes() for name in found} == found

    (in_table,) = read_cases(tmp_path / "out" / "cases.csv")
    assert row["members"] == 2
    assert row["mean_entropy"] == pytest.approx(float(in_table["mean_entropy"]), abs=1e-6)
    assert row["flags"] == []


def test_results_are_the_same_bytes_whatever_came_before(load, make_image, tmp_path):
    predictor, _ = load()
    images, other = make_image(tmp_path / "images"), make_image(tmp_path / "other", shape_zyx=(3, 30, 30), seed=1)
    for number, folder in enumerate((images, other, images)):
        predictor(folder, tmp_path / f"{number}.zip")
    first, between, again = ((tmp_path / f"{number}.zip").read_bytes() for number in range(3))
    assert first == again != between


def refusal_of(predictor, images: Path, results: Path) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        predictor(images, results)
    assert str(images.parent) not in refusal.value.message
    assert not results.exists()
    return refusal.value


def test_the_input_checks_of_predict_refuse_an_upload(load, make_image, tmp_path):
    predictor, _ = load()
    images = make_image(tmp_path / "images")
    file = images / "case_0000.nii.gz"
    file.write_bytes(file.read_bytes()[:-20])
    refusal = refusal_of(predictor, images, tmp_path / "result.zip")
    assert refusal.status == 422
    assert "truncated" in refusal.message


def test_a_header_whose_voxels_are_in_another_file_is_refused(load, make_image, tmp_path):
    predictor, _ = load()
    images = make_image(tmp_path / "images")
    file = images / "case_0000.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(file)), str(tmp_path / "plain.nii"))
    file.write_bytes((tmp_path / "plain.nii").read_bytes().replace(b"n+1\0", b"ni1\0", 1))
    assert refusal_of(predictor, images, tmp_path / "result.zip").status == 422


def test_a_missing_channel_is_named(load, make_image, tmp_path):
    predictor, _ = load()
    images = make_image(tmp_path / "images", channels=2)
    refusal = refusal_of(predictor, images, tmp_path / "result.zip")
    assert refusal.status == 422
    assert "2 channels" in refusal.message


def test_an_image_that_grows_when_it_is_resampled_is_refused(load, make_image, tmp_path):
    """4 slices of 20 x 26 voxels; in the network's 1 mm the pixels of 50 mm become 4 x 1000 x 1300."""
    predictor, _ = load(voxels=5_199_999)
    images = make_image(tmp_path / "images", spacing_xyz=(50.0, 50.0, 4.0))
    refusal = refusal_of(predictor, images, tmp_path / "result.zip")
    assert (refusal.status, "5.2e+06" in refusal.message) == (413, True)


def test_a_cascade_cannot_be_served(make_model_folder):
    folder = make_model_folder("nnUNetTrainer__nnUNetPlans__3d_cascade_fullres", configuration="3d_cascade_fullres")
    options = ServeOptions(ModelChoice(folders=(folder,)), EnsembleOptions(device="cpu", allow_tqdm=False))
    with pytest.raises(ValueError, match="prev"):
        loaded_predictor(options)
