"""`nnunet_ext pseudo-label`, from flags to the files, with predictions made by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.cli import main
from nnunet_ext.files.checkpoints import file_sha256

DATASET = "Dataset007_Tiny"
DESCRIPTION = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "organ": 1, "tumour": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
PLANS = {"image_reader_writer": "SimpleITKIO", "transpose_forward": [0, 1, 2]}
# p(background), p(organ), p(tumour) and mutual information of four voxels
VOXELS = [
    (0.95, 0.03, 0.02, 0.01),
    (0.03, 0.95, 0.02, 0.01),
    (0.03, 0.95, 0.02, 0.30),  # members disagree
    (0.10, 0.20, 0.70, 0.01),  # the only tumour, less certain than the rest
]


def write(values: object, file: Path) -> None:
    """Writes an image of 1 x 1 x n voxels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(np.asarray(values)[None, None]), str(file))


def read(file: Path) -> list[int]:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file))).ravel().tolist()


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`nnUNet_raw` with a dataset of two labelled cases, and its splits."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    folder = tmp_path / "nnUNet_raw" / DATASET
    for case in ("a", "b"):
        write(np.arange(4, dtype=np.float32), folder / "imagesTr" / f"{case}_0000.nii.gz")
        write(np.array([0, 1, 1, 2], np.uint8), folder / "labelsTr" / f"{case}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(DESCRIPTION))
    splits = tmp_path / "nnUNet_preprocessed" / DATASET / "splits_final.json"
    splits.parent.mkdir(parents=True)
    splits.write_text(json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]))
    return folder.parent


@pytest.fixture
def predict(raw: Path) -> Callable[..., Path]:
    """Writes image and prediction of a case as `nnunet_ext predict` does; returns the folder of the predictions."""
    folder, images = raw.parent / "predicted", raw / DATASET / "imagesUn"

    def run(case: str, voxels: list[tuple[float, ...]] = VOXELS) -> Path:
        values = np.array(voxels, np.float32)
        write(np.zeros(len(values), np.float32), images / f"{case}_0000.nii.gz")
        write(values[:, :3].argmax(1).astype(np.uint8), folder / f"{case}.nii.gz")
        write(values[:, 3], folder / "maps" / "mutual_information" / f"{case}.nii.gz")
        np.savez_compressed(folder / f"{case}.npz", probabilities=values[:, :3].T[:, None, None])
        (folder / "dataset.json").write_text(json.dumps(DESCRIPTION))
        (folder / "plans.json").write_text(json.dumps(PLANS))
        return folder

    return run


@pytest.fixture
def pseudo_label(raw: Path) -> Callable[..., int]:
    """Runs the command; returns its exit status."""

    def run(*flags: object, dataset: object = 7, new_id: int = 8) -> int:
        fixed = ["-i", raw / DATASET / "imagesUn", "-p", raw.parent / "predicted", "--disable_progress_bar"]
        return main(["pseudo-label", "-d", str(dataset), "--new-id", str(new_id), *map(str, [*fixed, *flags])])

    return run


def test_doubtful_voxels_are_ignored_and_a_rare_label_is_kept(predict, pseudo_label, raw, capsys):
    predict("u")
    assert pseudo_label() == 0
    folder = raw / "Dataset008_TinyPseudo1"
    # 3 is the ignore label; the limit of the tumour was lowered to its own confidence
    assert read(folder / "labelsTr" / "u.nii.gz") == [0, 1, 3, 2]
    description = json.loads((folder / "dataset.json").read_text())
    assert description["labels"] == {**DESCRIPTION["labels"], "ignore": 3}
    assert description["dataset"] == {
        "a": {"images": [f"../{DATASET}/imagesTr/a_0000.nii.gz"], "label": f"../{DATASET}/labelsTr/a.nii.gz"},
        "b": {"images": [f"../{DATASET}/imagesTr/b_0000.nii.gz"], "label": f"../{DATASET}/labelsTr/b.nii.gz"},
        "u": {"images": [f"../{DATASET}/imagesUn/u_0000.nii.gz"], "label": "labelsTr/u.nii.gz"},
    }
    assert "organ: 50.0 % ignored; confidence of at least 0.900" in capsys.readouterr().out


def test_splits_and_weights_lie_where_a_training_looks_for_them(predict, pseudo_label, raw):
    for case in ("u", "v", "w", "x"):
        predict(case)
    assert pseudo_label() == 0
    folder = raw.parent / "nnUNet_preprocessed" / "Dataset008_TinyPseudo1"
    assert json.loads((folder / "splits_final.json").read_text()) == [
        {"train": ["a", "u", "v", "w", "x"], "val": ["b"]},
        {"train": ["b", "u", "v", "w", "x"], "val": ["a"]},
    ]
    with (folder / "case_weights.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # two labelled cases and four others; 0.95, 0.95 and 0.7 in the foreground
    assert [row["case"] for row in rows] == ["u", "v", "w", "x"]
    assert {row["sampling"] for row in rows} == {"0.5"}
    assert float(rows[0]["loss"]) == pytest.approx(2.6 / 3, abs=1e-5)


def test_the_record_counts_the_round_and_what_is_ignored(predict, pseudo_label, raw):
    predict("u")
    assert pseudo_label() == 0
    record = json.loads((raw / "Dataset008_TinyPseudo1" / "pseudo_labels.json").read_text())
    assert (record["round"], record["dataset"]) == (1, DATASET)
    assert record["dataset_json_sha256"] == file_sha256(raw / DATASET / "dataset.json")
    assert record["limits"] == {"0": 0.9, "1": 0.9, "2": pytest.approx(0.7, abs=0.002)}
    assert record["ignored"] == {"0": 0, "1": 0.5, "2": 0}


def test_the_second_round_replaces_the_labels_of_the_first(predict, pseudo_label, raw):
    predict("u")
    assert pseudo_label() == 0
    first = raw.parent / "nnUNet_preprocessed" / "Dataset008_TinyPseudo1"
    assert first.is_dir()
    predict("u", [(0.0, 1.0, 0.0, 0.0)] * 4)
    assert pseudo_label(dataset=8, new_id=9) == 0
    folder = raw / "Dataset009_TinyPseudo2"
    assert json.loads((folder / "pseudo_labels.json").read_text())["round"] == 2
    assert read(folder / "labelsTr" / "u.nii.gz") == [1, 1, 1, 1]
    description = json.loads((folder / "dataset.json").read_text())
    assert description["labels"]["ignore"] == 3
    assert description["dataset"]["a"]["label"] == f"../{DATASET}/labelsTr/a.nii.gz"


def test_a_limit_of_one_label_empties_it_and_the_output_says_so(predict, pseudo_label, raw, capsys):
    predict("u")
    assert pseudo_label("--confidence", 0.9, "2=0.99") == 0
    assert read(raw / "Dataset008_TinyPseudo1" / "labelsTr" / "u.nii.gz") == [0, 1, 3, 3]
    assert "tumour: all ignored" in capsys.readouterr().out


def test_cases_with_labels_and_without_a_kept_voxel_are_left_out(predict, pseudo_label, raw, capsys):
    for case in ("a", "u"):
        predict(case)
    predict("doubtful", [(0.4, 0.3, 0.3, 0.5)] * 4)
    assert pseudo_label() == 0
    printed = capsys.readouterr().out
    assert "left out: a, already labelled" in printed
    assert "left out: doubtful, no voxel is kept" in printed
    assert sorted(file.name for file in (raw / "Dataset008_TinyPseudo1" / "labelsTr").iterdir()) == ["u.nii.gz"]


def test_rejected_cases_are_left_out(predict, pseudo_label, capsys):
    predict("u")
    folder = predict("v")
    (folder / "cases.csv").write_text("case,verdict\nu,accept\nv,reject\n")
    assert pseudo_label() == 0
    assert "left out: v, verdict reject" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--confidence", 1, "--least-kept", 0), "At least one voxel must be kept"),
        (("--confidence", "7=0.5"), "must name labels"),
        (("--confidence", "high"), "found high"),
        (("--patients", "(patient[0-9]+)"), "finds no patient"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(flags, message, predict, pseudo_label, raw, capsys):
    predict("u", [(0.95, 0.03, 0.02, 0.01)] * 4)
    assert pseudo_label(*flags) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in raw.iterdir()] == [DATASET]


def test_only_labelled_cases_are_refused(predict, pseudo_label, capsys):
    predict("a")
    assert pseudo_label() == 1
    assert "a (already labelled)" in capsys.readouterr().err


def test_missing_maps_name_the_command_that_writes_them(predict, pseudo_label, raw, capsys):
    (predict("u") / "maps" / "mutual_information" / "u.nii.gz").unlink()
    assert pseudo_label() == 1
    assert "--save_probabilities --maps mutual_information" in capsys.readouterr().err
    assert pseudo_label("--most-disagreement", 1) == 0
    assert read(raw / "Dataset008_TinyPseudo1" / "labelsTr" / "u.nii.gz") == [0, 1, 1, 2]


def test_predictions_of_other_images_are_refused(predict, pseudo_label, raw, capsys):
    predict("u")
    write(np.zeros(5, np.float32), raw / DATASET / "imagesUn" / "u_0000.nii.gz")
    assert pseudo_label() == 1
    assert "the shape of its image" in capsys.readouterr().err


def test_predictions_with_other_labels_are_refused(predict, pseudo_label, capsys):
    folder = predict("u")
    other = {**DESCRIPTION, "labels": {"background": 0, "organ": 1}}
    (folder / "dataset.json").write_text(json.dumps(other))
    assert pseudo_label() == 1
    assert "the same labels" in capsys.readouterr().err
