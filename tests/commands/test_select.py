"""`nnunet_ext select`, from flags to table and page, with predictions made by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.cli import main

DESCRIPTION = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "organ": 1, "tumour": 2},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}
SHAPE = (3, 8, 8)


def write(values: np.ndarray, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(file))


@pytest.fixture
def predict(tmp_path: Path) -> Callable[..., Path]:
    """Writes image, segmentation and map of a case as `nnunet_ext predict` does.

    `by_slice` has the uncertainty of all voxels of each slice; slice 1 has four voxels of `label`.
    """

    def run(case: str, by_slice: tuple[float, float, float], *, label: int = 1, by: str = "entropy") -> Path:
        folder = tmp_path / "predicted"
        uncertainty = np.broadcast_to(np.array(by_slice, np.float32)[:, None, None], SHAPE)
        segmentation = np.zeros(SHAPE, np.uint8)
        segmentation[1, 2:4, 2:4] = label
        write(np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE), tmp_path / "images" / f"{case}_0000.nii.gz")
        write(segmentation, folder / f"{case}.nii.gz")
        write(uncertainty.copy(), folder / "maps" / by / f"{case}.nii.gz")
        (folder / "dataset.json").write_text(json.dumps(DESCRIPTION))
        plans = {"image_reader_writer": "SimpleITKIO", "transpose_forward": [0, 1, 2]}
        (folder / "plans.json").write_text(json.dumps(plans))
        return folder

    return run


@pytest.fixture
def select(tmp_path: Path) -> Callable[..., int]:
    """Runs the command; returns its exit status."""

    def run(*flags: object, output: str = "round") -> int:
        fixed = ["-p", tmp_path / "predicted", "-i", tmp_path / "images", "-o", tmp_path / output]
        return main(["select", *map(str, [*fixed, "--disable_progress_bar", *flags])])

    return run


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., list[dict[str, str]]]:
    def read(output: str = "round") -> list[dict[str, str]]:
        with (tmp_path / output / "selected.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return read


def test_the_most_uncertain_cases_come_first(predict, select, table, tmp_path, capsys):
    """A third of the voxels counts: the most uncertain slice."""
    predict("a", (0.1, 0.2, 0.1))
    predict("b", (0.1, 0.1, 0.6))
    predict("c", (0.3, 0.3, 0.3))
    assert select("--strategy", "top", "--number", 2, "--top-share", 1 / 3) == 0
    assert [(row["rank"], row["case"], row["score"]) for row in table()] == [("1", "b", "0.6"), ("2", "c", "0.3")]
    assert table()[0]["box"] == "0:3 0:8 0:8"
    assert table()[0]["images"] == str(tmp_path / "images" / "b_0000.nii.gz")
    assert table()[0]["segmentation"] == str(tmp_path / "predicted" / "b.nii.gz")
    assert "2 of 3 cases in 3 cases" in capsys.readouterr().out


def test_slices_are_chosen_one_by_one(predict, select, table):
    predict("a", (0.1, 0.7, 0.2))
    predict("b", (0.5, 0.1, 0.6))
    assert select("--unit", "slice", "--strategy", "top", "--number", 3) == 0
    assert [(row["case"], row["slice"]) for row in table()] == [("a", "1"), ("b", "2"), ("b", "0")]
    assert table()[0]["box"] == "1:2 0:8 0:8"


def test_slices_follow_the_first_axis_of_the_plans(predict, select, table, tmp_path):
    """Along x all slices are equally uncertain, so the first one comes first; the page shows 8 slices of 3 x 8."""
    folder = predict("a", (0.1, 0.7, 0.2))
    plans = {"image_reader_writer": "SimpleITKIO", "transpose_forward": [2, 0, 1]}
    (folder / "plans.json").write_text(json.dumps(plans))
    assert select("--unit", "slice", "--strategy", "top", "--number", 2) == 0
    assert [(row["slice"], row["box"]) for row in table()] == [("0", "0:3 0:8 0:1"), ("1", "0:3 0:8 1:2")]
    assert "slice 2 of 8" in (tmp_path / "round" / "selected.html").read_text()


def test_the_next_round_leaves_out_what_is_annotated(predict, select, table, tmp_path):
    predict("a", (0.1, 0.7, 0.2))
    predict("b", (0.5, 0.1, 0.6))
    by_slice = ("--unit", "slice", "--strategy", "top")
    assert select(*by_slice, "--number", 2) == 0
    assert select(*by_slice, "--number", 2, "--already", tmp_path / "round" / "selected.csv", output="next") == 0
    assert [(row["case"], row["slice"]) for row in table("next")] == [("b", "0"), ("a", "2")]
    assert select(*by_slice, "--number", 2, "--already", "b", output="without") == 0
    assert [row["case"] for row in table("without")] == ["a", "a"]


def test_patches_do_not_overlap(predict, select, table):
    predict("a", (0.1, 0.7, 0.2))
    assert select("--unit", "patch", "--patch-size", 1, 4, 8, "--strategy", "top", "--number", 9) == 0
    assert [row["box"] for row in table()] == [f"{z}:{z + 1} {y}:{y + 4} 0:8" for z in (1, 2, 0) for y in (0, 4)]


def test_power_names_the_label_that_a_unit_was_chosen_for(predict, select, table):
    predict("a", (0.1, 0.7, 0.2), label=1)
    predict("b", (0.5, 0.1, 0.6), label=2)
    flags = ("--unit", "slice", "--number", 2, "--stratified", 1)
    assert select("--strategy", "power", *flags) == 0
    assert {(row["label"], row["case"], row["slice"]) for row in table()} == {
        ("organ", "a", "1"),
        ("tumour", "b", "1"),
    }
    assert select("--strategy", "random", *flags, output="random") == 0
    assert {(row["label"], row["case"]) for row in table("random")} == {("organ", "a"), ("tumour", "b")}


def test_other_maps_can_score(predict, select, table, tmp_path):
    predict("a", (0.1, 0.2, 0.1), by="tta_variance")
    assert select("--by", "tta_variance") == 0
    assert table()[0]["case"] == "a"
    assert "TTA variance" in (tmp_path / "round" / "selected.html").read_text()


def test_the_page_shows_the_slices_and_loads_nothing(predict, select, tmp_path):
    predict("a", (0.1, 0.7, 0.2))
    predict("b", (0.5, 0.1, 0.6))
    assert select("--unit", "slice", "--strategy", "top", "--number", 3, "--shown", 2) == 0
    page = (tmp_path / "round" / "selected.html").read_text()
    assert page.count('<article class="card"') == 2
    assert page.count("<img ") == 4  # segmentation and map of each
    assert "slice 2 of 3" in page and "slice 3 of 3" in page
    assert "http:" not in page and "https:" not in page


def test_without_images_the_page_says_so(predict, select, tmp_path):
    predict("a", (0.1, 0.7, 0.2))
    predict("b", (0.5, 0.1, 0.6))
    (tmp_path / "images" / "b_0000.nii.gz").unlink()
    assert select("--strategy", "top") == 0
    assert "No image: drawn on black." in (tmp_path / "round" / "selected.html").read_text()


def test_no_page_is_written_where_none_is_wanted(predict, select, tmp_path):
    predict("a", (0.1, 0.7, 0.2))
    assert select("--shown", 0) == 0
    assert sorted(path.name for path in (tmp_path / "round").iterdir()) == ["selected.csv", "selection.json"]


def test_the_record_says_how_it_was_selected(predict, select, tmp_path):
    predict("a", (0.1, 0.7, 0.2))
    assert select("--seed", 3, "--shown", 0) == 0
    record = json.loads((tmp_path / "round" / "selection.json").read_text())
    assert record["options"]["strategy"]["seed"] == 3
    assert record["units"] == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--by", "mutual_information"), "Predict with --maps mutual_information"),
        (("--already", "z"), "there is none with the name z"),
        (("--already", "a"), "At least one case must be left to annotate"),
        (("--unit", "patch"), "Patches need a size"),
        (("--strategy", "k-centre"), "Give its folder with -m"),
        (("--beta", 0), "--beta must be above 0"),
        (("--number", 0), "--number must be 1 or more"),
        (("--top-share", 0), "--top-share must be above 0"),
    ],
)
def test_what_cannot_be_selected_is_refused(predict, select, tmp_path, capsys, flags, message):
    predict("a", (0.1, 0.7, 0.2))
    assert select(*flags) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "round" / "selected.csv").exists()


def test_a_table_that_cannot_be_written_is_refused_before_a_map_is_read(predict, select, tmp_path, capsys):
    folder = predict("a", (0, 0, 0))
    (folder / "maps" / "entropy" / "a.nii.gz").write_bytes(b"no map")
    (tmp_path / "file").touch()
    assert select(output="file/out") == 1
    assert "The result must be written into" in capsys.readouterr().err


def test_a_folder_that_is_no_prediction_is_refused(select, capsys):
    assert select() == 1
    assert "Units are selected from a folder that nnunet_ext predict wrote" in capsys.readouterr().err


@pytest.fixture
def predicted(make_model_folder, make_image, tmp_path) -> Path:
    """Three images, the last two alike, predicted by a network with random weights; returns the model folder."""
    model = make_model_folder(logit_scale=1.0)
    for case, seed in (("a", 0), ("b", 1), ("c", 1)):
        make_image(tmp_path / "images", case, seed=seed)
    folders = ["-i", tmp_path / "images", "-o", tmp_path / "predicted", "-m", model]
    assert main(["predict", *map(str, folders), "-device", "cpu", "--disable_progress_bar"]) == 0
    return model


def test_k_centre_leaves_out_what_resembles_a_chosen_case(predicted, select, table, tmp_path):
    """Of two equal images one is chosen, even where all cases are candidates."""
    assert select("--strategy", "k-centre", "--number", 2, "-device", "cpu") == 0
    found = {row["case"] for row in table()}
    assert "a" in found and len(found) == 2
    features = np.load(tmp_path / "round" / "features.npz")
    rows = dict(zip(features["case"].tolist(), features["features"], strict=True))
    assert np.allclose(rows["b"], rows["c"]) and not np.allclose(rows["a"], rows["b"])


def test_k_centre_keeps_away_from_labelled_images(predicted, select, table, make_image, tmp_path):
    make_image(tmp_path / "labelled", "old", seed=1)
    flags = ("--strategy", "k-centre", "--number", 1, "-m", predicted, "--labelled", tmp_path / "labelled")
    assert select(*flags, "-device", "cpu") == 0
    assert [row["case"] for row in table()] == ["a"]


def test_k_centre_compares_slices_and_patches(predicted, select, table):
    for unit in (["slice"], ["patch", "--patch-size", 2, 8, 8]):
        assert select("--strategy", "k-centre", "--number", 3, "--unit", *unit, "-device", "cpu") == 0
        assert len(table()) == 3


def test_k_centre_needs_the_images(predicted, select, tmp_path, capsys):
    for file in (tmp_path / "images").glob("[bc]_0000.nii.gz"):
        file.unlink()
    assert select("--strategy", "k-centre", "-device", "cpu") == 1
    assert "Give the folder of the predicted images with -i" in capsys.readouterr().err
