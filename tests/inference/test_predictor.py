"""Prediction end to end, from image files to results, compared with stock nnU-Net and with NumPy.

Comparisons of label maps use scaled logits and blocks of constant grey (see conftest.py). With plain random weights
many voxels would be near-ties, which rounding decides, and the comparison would be about rounding.
"""

from __future__ import annotations

import csv
import gc
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.cli import main
from nnunet_ext.inference import EnsemblePredictor
from nnunet_ext.models import weight_store
from nnunet_ext.models.members import MemberError
from nnunet_ext.options import OutputOptions
from nnunet_ext.prediction_folder.cases import find_cases

MAPS = ("entropy", "mutual_information", "expected_entropy", "variance", "confidence")
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}
# Configurations whose spacing differs from the image's (4, 1, 1 mm along z, y, x) and whose axes are transposed.
CONFIGURATIONS = {
    "2d": {"configuration": "2d", "spacing_mm": [1.2, 0.9], "transpose_forward": (0, 2, 1), "mirror_axes": (0, 1)},
    "3d": {
        "configuration": "3d_fullres",
        "spacing_mm": [1.25, 3.0, 0.8],
        "transpose_forward": (2, 0, 1),
        "mirror_axes": (0, 1, 2),
    },
}
each_configuration = pytest.mark.parametrize("settings", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())


def opened(folders: Path | Sequence[Path], **settings: Any) -> EnsemblePredictor:
    return EnsemblePredictor.from_model_folders(folders, device="cpu", allow_tqdm=False, **settings)


def predicted(
    folders: Path | Sequence[Path],
    images: Path,
    output: Path,
    *,
    save_probabilities: bool = False,
    save_members: bool = False,
    maps: Sequence[str] = (),
    **settings: Any,
) -> Path:
    """The output folder of a run in which every case must succeed."""
    report = opened(folders, **settings).predict_from_files(
        images, output, save_probabilities, maps=maps, save_members=save_members
    )
    assert report.failed == {}
    return output


def predicted_by_stock(predictor: nnUNetPredictor, images: Path, output: Path, **settings: Any) -> Path:
    output.mkdir()
    predictor.predict_from_files_sequential(str(images), str(output), **settings)
    return output


def voxels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def segmentation(output: Path, case: str = "case") -> np.ndarray:
    return voxels(output / f"{case}.nii.gz")


def probabilities(output: Path, case: str = "case") -> np.ndarray:
    with np.load(output / f"{case}.npz") as archive:
        return archive["probabilities"]


def table(output: Path) -> dict[str, dict[str, str]]:
    with (output / "cases.csv").open(newline="", encoding="utf-8") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def geometry(path: Path) -> tuple[Any, ...]:
    image = sitk.ReadImage(str(path))
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


@pytest.fixture
def images(make_image: Callable[..., Path], tmp_path: Path) -> Path:
    """A folder with one case, `case`."""
    return make_image(tmp_path / "images")


# --- stock nnU-Net ---


@each_configuration
def test_averaged_logits_of_folds_give_the_segmentation_of_stock_nnunet(
    make_model_folder, stock_predictor, images, tmp_path, settings
):
    """No voxel differs from stock nnU-Net with fp32 sums, and hardly any from stock with half precision."""
    folder = make_model_folder(folds=(0, 1, 2), **settings)
    ours = segmentation(predicted(folder, images, tmp_path / "ours", average="logits"))
    exact = segmentation(predicted_by_stock(stock_predictor(folder, exact=True), images, tmp_path / "exact"))
    stock = segmentation(predicted_by_stock(stock_predictor(folder), images, tmp_path / "stock"))
    assert np.bincount(exact.ravel(), minlength=3).min() > 0.1 * exact.size  # all labels are there
    assert np.count_nonzero(ours != exact) == 0
    assert np.mean(ours == stock) >= 0.999


@each_configuration
def test_one_member_gives_the_same_segmentation_by_both_averages_and_by_stock(
    make_model_folder, stock_predictor, images, tmp_path, settings
):
    folder = make_model_folder(**settings)
    by_probabilities = segmentation(predicted(folder, images, tmp_path / "p", average="probabilities"))
    by_logits = segmentation(predicted(folder, images, tmp_path / "l", average="logits"))
    stock = segmentation(predicted_by_stock(stock_predictor(folder, exact=True), images, tmp_path / "stock"))
    np.testing.assert_array_equal(by_probabilities, by_logits)
    np.testing.assert_array_equal(by_probabilities, stock)
    assert set(np.unique(stock)) == {0, 1, 2}


@each_configuration
def test_maps_and_labels_are_those_of_stock_members_put_together_by_hand(
    make_model_folder, stock_predictor, images, tmp_path, settings
):
    """Stock with fp32 sums predicts each member with its probabilities; NumPy takes mean and entropies in double."""
    folder = make_model_folder(folds=(0, 1, 2), logit_scale=3, **settings)
    ours = predicted(folder, images, tmp_path / "ours", maps=["entropy", "mutual_information"])
    members = []
    for fold in (0, 1, 2):
        stock = stock_predictor(folder, [fold], exact=True)
        output = predicted_by_stock(stock, images, tmp_path / f"stock {fold}", save_probabilities=True)
        members.append(probabilities(output).astype(np.float64))
    mean = np.mean(members, axis=0)
    total, expected = entropy_by_ln_3(mean), np.mean([entropy_by_ln_3(member) for member in members], axis=0)
    np.testing.assert_allclose(voxels(ours / "maps" / "entropy" / "case.nii.gz"), total, atol=1e-5)
    information = voxels(ours / "maps" / "mutual_information" / "case.nii.gz")
    np.testing.assert_allclose(information, total - expected, atol=1e-5)
    assert information.max() > 0.01
    first, second = np.sort(mean, axis=0)[[-1, -2]]
    clear = first - second > 1e-6  # ties aside
    np.testing.assert_array_equal(segmentation(ours)[clear], mean.argmax(0)[clear])
    assert clear.mean() > 0.99


def entropy_by_ln_3(p: np.ndarray) -> np.ndarray:
    logarithms = np.log(p, out=np.zeros_like(p), where=p > 0)
    return -(p * logarithms).sum(0) / np.log(3)


@each_configuration
def test_saved_probabilities_are_laid_out_as_stock_lays_them_out(
    make_model_folder, stock_predictor, images, tmp_path, settings
):
    folder = make_model_folder(logit_scale=1, **settings)
    ours = predicted(folder, images, tmp_path / "ours", save_probabilities=True)
    stock = predicted_by_stock(
        stock_predictor(folder, exact=True), images, tmp_path / "stock", save_probabilities=True
    )
    with np.load(ours / "case.npz") as found, np.load(stock / "case.npz") as expected:
        assert found.files == expected.files
        assert found["probabilities"].dtype == expected["probabilities"].dtype
        assert found["probabilities"].shape == expected["probabilities"].shape
        np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-5)
    our_properties, properties = (pickle.loads((folder / "case.pkl").read_bytes()) for folder in (ours, stock))
    assert our_properties.keys() == properties.keys()
    assert our_properties["sitk_stuff"] == properties["sitk_stuff"]
    assert our_properties["bbox_used_for_cropping"] == properties["bbox_used_for_cropping"]
    assert geometry(ours / "case.nii.gz") == geometry(stock / "case.nii.gz")
    for name in ("dataset.json", "plans.json"):
        assert json.loads((ours / name).read_text()) == json.loads((stock / name).read_text())


@pytest.mark.parametrize("asked", [{"tile_step_size": 1.0}, {"use_gaussian": False}])
def test_step_and_window_are_those_that_were_asked_for(
    make_model_folder, stock_predictor, make_image, tmp_path, asked
):
    """46 columns without the frame, patch 16: 5 tiles a row with the usual step of 8, 3 with a step of 16."""
    images = make_image(tmp_path / "images", shape_zyx=(2, 20, 50))
    folder = make_model_folder(logit_scale=1)
    ours = predicted(folder, images, tmp_path / "ours", save_probabilities=True, **asked)
    stock = predicted_by_stock(
        stock_predictor(folder, exact=True, **asked), images, tmp_path / "stock", save_probabilities=True
    )
    np.testing.assert_allclose(probabilities(ours), probabilities(stock), atol=1e-5)
    default = predicted(folder, images, tmp_path / "default", save_probabilities=True)
    assert np.abs(probabilities(ours) - probabilities(default)).max() > 1e-3


@pytest.mark.parametrize("mirroring", [True, False])
def test_region_based_models_predict_as_stock_does(make_model_folder, stock_predictor, images, tmp_path, mirroring):
    folder = make_model_folder(
        labels=REGIONS,
        regions_class_order=[1, 2],
        logit_scale=5,
        seeds=[42],  # a seed with all labels
    )
    ours = predicted(
        folder,
        images,
        tmp_path / "ours",
        save_probabilities=True,
        maps=["entropy"],
        tta="flips" if mirroring else "none",
    )
    stock = predicted_by_stock(
        stock_predictor(folder, exact=True, use_mirroring=mirroring), images, tmp_path / "stock",
        save_probabilities=True,
    )  # fmt: skip
    assert set(np.unique(segmentation(stock))) == {0, 1, 2}
    np.testing.assert_array_equal(segmentation(ours), segmentation(stock))
    np.testing.assert_allclose(probabilities(ours), probabilities(stock), atol=1e-5)
    p = probabilities(stock).astype(np.float64).clip(1e-12, 1 - 1e-12)
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(0) / (2 * np.log(2))
    np.testing.assert_allclose(voxels(ours / "maps" / "entropy" / "case.nii.gz"), entropy, atol=1e-5)
    assert {"volume_ml_whole", "volume_ml_core"} <= table(ours)["case"].keys()


def test_an_ignore_label_is_no_output_and_no_column(make_model_folder, stock_predictor, images, tmp_path):
    folder = make_model_folder(labels={"background": 0, "left": 1, "right": 2, "ignore": 3})
    ours = predicted(folder, images, tmp_path / "ours", save_probabilities=True)
    stock = predicted_by_stock(stock_predictor(folder, exact=True), images, tmp_path / "stock")
    np.testing.assert_array_equal(segmentation(ours), segmentation(stock))
    assert probabilities(ours).shape[0] == 3
    assert not any("ignore" in column for column in table(ours)["case"])


def test_a_cascade_is_predicted_from_the_previous_stage_as_stock_does(
    make_model_folder, stock_predictor, images, tmp_path
):
    folder = make_model_folder(configuration="3d_cascade_fullres", mirror_axes=(0, 1, 2))
    previous = tmp_path / "lowres"
    previous.mkdir()
    image = sitk.ReadImage(str(images / "case_0000.nii.gz"))
    labels = sitk.GetImageFromArray((voxels(images / "case_0000.nii.gz") // 120).astype(np.uint8))  # 0, 1 and 2
    labels.CopyInformation(image)
    sitk.WriteImage(labels, str(previous / "case.nii.gz"))
    stock = predicted_by_stock(
        stock_predictor(folder, exact=True), images, tmp_path / "stock",
        folder_with_segs_from_prev_stage=str(previous),
    )  # fmt: skip
    predictor = opened(folder)
    report = predictor.predict_from_files(images, tmp_path / "ours", folder_with_segs_from_prev_stage=previous)
    assert report.failed == {}
    np.testing.assert_array_equal(segmentation(tmp_path / "ours"), segmentation(stock))
    with pytest.raises(ValueError, match=r"3d_lowres.*-prev_stage_predictions"):
        predictor.predict_from_files(images, tmp_path / "without")
    (previous / "case.nii.gz").unlink()
    report = predictor.predict_from_files(images, tmp_path / "gone", folder_with_segs_from_prev_stage=previous)
    assert str(previous / "case.nii.gz") in report.failed["case"]


def test_two_channels_are_read_in_their_order(make_model_folder, stock_predictor, make_image, tmp_path):
    folder = make_model_folder(channels=2)
    images = make_image(tmp_path / "images", channels=2)
    ours = predicted(folder, images, tmp_path / "ours")
    stock = predicted_by_stock(stock_predictor(folder, exact=True), images, tmp_path / "stock")
    np.testing.assert_array_equal(segmentation(ours), segmentation(stock))
    (images / "case_0001.nii.gz").unlink()
    report = opened(folder).predict_from_files(images, tmp_path / "one channel")
    assert "case_0001.nii.gz" in report.failed["case"]


# --- the ensemble ---


def test_members_are_averaged_in_probability(make_model_folder, images, tmp_path):
    """The Bayesian model average, its entropies and its segmentation, from each member's own probabilities."""
    folder = make_model_folder(folds=(0, 1, 2), logit_scale=3)
    alone = np.stack(
        [
            probabilities(predicted(folder, images, tmp_path / f"fold {fold}", folds=[fold], save_probabilities=True))
            for fold in range(3)
        ]
    ).astype(np.float64)
    output = predicted(folder, images, tmp_path / "all", maps=MAPS, save_probabilities=True)
    mean = alone.mean(0)
    np.testing.assert_allclose(probabilities(output), mean, atol=1e-6)
    np.testing.assert_array_equal(segmentation(output), mean.argmax(0))

    def entropy(p: np.ndarray, axis: int) -> np.ndarray:
        return -(p * np.log(p.clip(1e-300))).sum(axis) / np.log(3)

    expected = {
        "entropy": entropy(mean, 0),
        "expected_entropy": entropy(alone, 1).mean(0),
        "mutual_information": entropy(mean, 0) - entropy(alone, 1).mean(0),
        "variance": alone.var(0).sum(0),
        "confidence": mean.max(0),
    }
    for name in MAPS:
        np.testing.assert_allclose(voxels(output / "maps" / name / "case.nii.gz"), expected[name], atol=1e-5)


def test_each_saved_member_is_what_that_member_predicts_alone(make_model_folder, images, tmp_path):
    folder = make_model_folder(folds=(0, 2))
    output = predicted(folder, images, tmp_path / "both", save_members=True)
    assert {path.name for path in (output / "members").iterdir()} == {
        "fold_0__checkpoint_final",
        "fold_2__checkpoint_final",
    }
    for fold in (0, 2):
        alone = predicted(folder, images, tmp_path / f"fold {fold}", folds=[fold])
        member = voxels(output / "members" / f"fold_{fold}__checkpoint_final" / "case.nii.gz")
        np.testing.assert_array_equal(member, segmentation(alone))


def test_flips_can_be_members(make_model_folder, images, tmp_path):
    """Two folds with two mirror axes: 2 · 4 members. The first of each fold is not mirrored."""
    folder = make_model_folder(folds=(0, 1))
    output = predicted(folder, images, tmp_path / "flips", tta_members=True, save_members=True)
    assert table(output)["case"]["members"] == "8"
    flips = ("none", "0", "1", "01")
    assert {path.name for path in (output / "members").iterdir()} == {
        f"fold_{fold}__checkpoint_final+flip-{flip}" for fold in (0, 1) for flip in flips
    }
    plain = predicted(folder, images, tmp_path / "plain", folds=[1], tta="none")
    not_flipped = voxels(output / "members" / "fold_1__checkpoint_final+flip-none" / "case.nii.gz")
    np.testing.assert_array_equal(not_flipped, segmentation(plain))
    for arguments in ({"tta_members": False}, {"tta_members": True, "tta": "none"}):
        assert opened(folder, **arguments).engine.passes_per_case == 2


@pytest.mark.parametrize("weights", [None, [3.0, 1.0]])
def test_model_folders_of_other_spacing_and_axes_are_averaged_in_the_image(
    make_model_folder, images, tmp_path, weights
):
    """Without weights every member counts the same: two of the first folder, one of the second. With weights each
    folder has its own, which its members share."""
    first = make_model_folder("first", folds=(0, 1), logit_scale=3, **CONFIGURATIONS["2d"])
    second = make_model_folder("second", logit_scale=3, **CONFIGURATIONS["3d"])
    alone = [
        probabilities(predicted(folder, images, tmp_path / f"alone in {folder.name}", save_probabilities=True))
        for folder in (first, second)
    ]
    expected = np.average(alone, axis=0, weights=weights or [2, 1])
    output = predicted(
        [first, second], images, tmp_path / "both", model_weights=weights, save_probabilities=True, save_members=True
    )
    np.testing.assert_allclose(probabilities(output), expected, atol=1e-5)
    assert table(output)["case"]["members"] == "3"
    assert {path.name for path in (output / "members").iterdir()} == {
        "first__fold_0__checkpoint_final",
        "first__fold_1__checkpoint_final",
        "second__fold_0__checkpoint_final",
    }


def test_averaged_logits_of_model_folders_are_softmaxed_after_the_mean(make_model_folder, images, tmp_path):
    """log p is the logits up to a constant per voxel, so the mean of log p over folders has the same softmax."""
    first = make_model_folder("first", folds=(0, 1), logit_scale=1, spacing_mm=[1.0, 1.0])
    second = make_model_folder("second", logit_scale=1, seeds=[7], spacing_mm=[1.0, 1.0])
    logarithms = [
        np.log(probabilities(predicted(folder, images, tmp_path / f"{folder.name} {fold}", folds=[fold],
                                       save_probabilities=True)).clip(1e-30))
        for folder, fold in ((first, 0), (first, 1), (second, 0))
    ]  # fmt: skip
    mean = np.exp(np.average(logarithms, axis=0, weights=[0.5, 0.5, 3]))
    output = predicted(
        [first, second], images, tmp_path / "both", average="logits", model_weights=[1, 3], save_probabilities=True
    )
    seen = probabilities(output)[0] < 1  # outside of the crop background is certain
    np.testing.assert_allclose(probabilities(output)[:, seen], (mean / mean.sum(0))[:, seen], atol=1e-5)


def test_members_of_two_trainings_of_the_same_name_are_kept_apart(make_model_folder, images, tmp_path):
    """The usual deep ensemble: one trainer, two results folders."""
    folders = [make_model_folder(f"{root}/nnUNetTrainer__nnUNetPlans__2d", seeds=[seed]) for root, seed in
               (("results_1", 0), ("results_2", 1))]  # fmt: skip
    output = predicted(folders, images, tmp_path / "out", save_members=True)
    assert len(list((output / "members").iterdir())) == 2


# --- what is written ---


def test_the_output_folder_holds_what_was_asked_for_and_nothing_else(make_model_folder, make_image, tmp_path, capsys):
    images = make_image(make_image(tmp_path / "images", "a"), "b", seed=1)
    folder = make_model_folder(folds=(0, 1))
    plain = predicted(folder, images, tmp_path / "plain")
    about_the_run = {"cases.csv", "predict_args.json", "dataset.json", "plans.json"}
    assert files_in(plain) == {"a.nii.gz", "b.nii.gz", *about_the_run}
    full = predicted(
        folder, images, tmp_path / "full", maps=["entropy", "variance"], save_probabilities=True, save_members=True
    )
    names = ["fold_0__checkpoint_final", "fold_1__checkpoint_final"]
    assert files_in(full) == {
        *about_the_run,
        *(f"{case}{ending}" for case in "ab" for ending in (".nii.gz", ".npz", ".pkl")),
        *(f"maps/{name}/{case}.nii.gz" for case in "ab" for name in ("entropy", "variance")),
        *(f"members/{name}/{case}.nii.gz" for case in "ab" for name in names),
    }
    np.testing.assert_array_equal(segmentation(plain, "a"), segmentation(full, "a"))
    assert capsys.readouterr().out == ""  # the library does not print


@each_configuration
def test_maps_lie_on_the_image_and_are_between_0_and_1(make_model_folder, images, tmp_path, settings):
    folder = make_model_folder(folds=(0, 1, 2), logit_scale=3, **settings)
    output = predicted(folder, images, tmp_path / "out", maps=MAPS)
    maps = {name: output / "maps" / name / "case.nii.gz" for name in MAPS}
    for path in (*maps.values(), output / "case.nii.gz"):
        # a file holds geometry in single precision
        for found, expected in zip(geometry(path), geometry(images / "case_0000.nii.gz"), strict=True):
            assert found == pytest.approx(expected, abs=1e-6)
    values = {name: voxels(path) for name, path in maps.items()}
    for name in MAPS:
        assert values[name].dtype == np.float32
        assert 0 <= values[name].min() < values[name].max() <= 1
    assert (values["mutual_information"] - values["entropy"]).max() <= 1e-6
    total = values["mutual_information"] + values["expected_entropy"]
    np.testing.assert_allclose(values["entropy"], total, atol=1e-6)
    outside = voxels(images / "case_0000.nii.gz") == 0  # what nnU-Net crops away
    assert values["entropy"][outside].max() == 0
    assert values["confidence"][outside].min() == 1


def test_the_row_of_a_case_agrees_with_its_files(make_model_folder, images, tmp_path):
    folder = make_model_folder(folds=(0, 1, 2), logit_scale=3)
    output = predicted(folder, images, tmp_path / "out", maps=MAPS, save_members=True)
    row = table(output)["case"]
    assert list(row) == [
        *("case", "members", "mean_entropy", "foreground_entropy", "mutual_information", "pairwise_dice"),
        *("volume_ml_left", "volume_cv_left", "volume_ml_right", "volume_cv_right", "flags"),
    ]
    labels = segmentation(output)
    entropy, information = (
        voxels(output / "maps" / name / "case.nii.gz").astype(np.float64)
        for name in ("entropy", "mutual_information")
    )
    members = [voxels(path) for path in sorted((output / "members").glob("*/case.nii.gz"))]
    # pairs of members: mean Dice of the labels that one of the two has
    dices = [
        np.mean(
            [
                2 * np.count_nonzero((a == label) & (b == label)) / np.count_nonzero([a == label, b == label])
                for label in (1, 2)
                if (a == label).any() or (b == label).any()
            ]
        )
        for a, b in ((members[0], members[1]), (members[0], members[2]), (members[1], members[2]))
    ]
    left = [np.count_nonzero(member == 1) for member in members]
    expected = {
        "members": 3,
        "mean_entropy": entropy.mean(),
        "foreground_entropy": entropy[labels > 0].mean(),
        "mutual_information": information.mean(),
        "pairwise_dice": np.mean(dices),
        "volume_ml_left": np.count_nonzero(labels == 1) * 4 / 1000,  # voxels of 1 x 1 x 4 mm
        "volume_cv_left": np.std(left) / np.mean(left),
    }
    assert {name: float(row[name]) for name in expected} == pytest.approx(expected, rel=1e-4)
    assert row["flags"] == ""


def test_the_run_is_recorded_with_every_members_hash(make_model_folder, images, tmp_path):
    folder = make_model_folder(folds=(0, 1))
    output = predicted(folder, images, tmp_path / "out")
    record = json.loads((output / "predict_args.json").read_text(encoding="utf-8"))
    for fold, member in enumerate(record["members"]):
        path = folder / f"fold_{fold}" / "checkpoint_final.pth"
        assert member["name"] == f"fold_{fold}/checkpoint_final"
        assert member["file"] == str(path)
        assert member["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (member["trainer"], member["configuration"]) == ("nnUNetTrainer", "2d")
    assert len(record["members"]) == 2
    assert {"nnunetv2", "torch"} <= record["versions"].keys()
    assert record["arguments"] == {"members": "final", "average": "probabilities"}


# --- many cases ---


@pytest.fixture
def five_images(make_image: Callable[..., Path], tmp_path: Path) -> Path:
    for number in range(5):
        make_image(tmp_path / "five", f"c{number}", shape_zyx=(2, 20, 20), seed=number)
    return tmp_path / "five"


def test_continuing_skips_complete_cases_and_redoes_the_others(make_model_folder, five_images, tmp_path):
    predictor, output = opened(make_model_folder()), tmp_path / "out"
    predictor.predict_from_files(five_images, output)
    whole = {case: segmentation(output, case) for case in ("c1", "c2")}
    rows = table(output)
    (output / "c0.nii.gz").write_bytes(b"kept as it is")
    (output / "c1.nii.gz").unlink()
    (output / "maps" / "entropy" / "c2.nii.gz").unlink()
    (output / ".partial-c1").mkdir()  # what a killed run leaves
    (output / ".partial-c1" / "c1.nii.gz").write_bytes(b"half of it")

    report = predictor.predict_from_files(five_images, output, overwrite=False)
    assert report.skipped == ["c0", "c3", "c4"]
    assert report.predicted == ["c1", "c2"]
    assert (output / "c0.nii.gz").read_bytes() == b"kept as it is"
    for case, labels in whole.items():
        np.testing.assert_array_equal(segmentation(output, case), labels)
    assert (output / "maps" / "entropy" / "c2.nii.gz").is_file()
    assert not list(output.rglob(".partial-*"))
    assert table(output) == rows

    report = predictor.predict_from_files(five_images, output, save_probabilities=True, overwrite=False)
    assert report.skipped == []  # none has probabilities yet
    assert predictor.predict_from_files(five_images, output, overwrite=True).predicted == [f"c{i}" for i in range(5)]


def test_parts_cover_every_case_once(make_model_folder, five_images, tmp_path):
    predictor, output = opened(make_model_folder()), tmp_path / "out"
    reports = [
        predictor.predict_from_files(five_images, output, num_parts=3, part_id=part, maps=()) for part in (2, 0, 1)
    ]
    assert [len(report.predicted) for report in reports] == [1, 2, 2]
    assert sorted(case for report in reports for case in report.predicted) == [f"c{i}" for i in range(5)]
    alone = tmp_path / "alone"
    predictor.predict_from_files(five_images, alone, maps=())
    assert table(output) == table(alone)
    for case in table(alone):
        np.testing.assert_array_equal(segmentation(output, case), segmentation(alone, case))


@pytest.mark.parametrize(
    "output",
    [
        "out",
        None,
    ],
)
@pytest.mark.parametrize(("num_parts", "part_id"), [(2, 2), (2, -1)])
def test_a_part_that_does_not_exist_is_refused(make_model_folder, images, tmp_path, output, num_parts, part_id):
    predictor = opened(make_model_folder())
    with pytest.raises(ValueError, match="part"):
        predictor.predict_from_files(
            images, tmp_path / output if output else None, num_parts=num_parts, part_id=part_id
        )


def test_preprocessing_and_writing_in_line_give_the_same(make_model_folder, five_images, tmp_path):
    predictor = opened(make_model_folder(folds=(0, 1)))
    outputs = [tmp_path / "threads", tmp_path / "in line"]
    for output, processes in zip(outputs, (1, 0), strict=True):
        report = predictor.predict_from_files(
            five_images,
            output,
            num_processes_preprocessing=processes,
            num_processes_segmentation_export=processes,
        )
        assert report.predicted == [f"c{i}" for i in range(5)]
    assert table(outputs[0]) == table(outputs[1])
    assert files_in(outputs[0]) == files_in(outputs[1])


def test_lists_of_files_are_written_under_the_names_given(make_model_folder, five_images, tmp_path):
    predictor = opened(make_model_folder())
    files = [[str(five_images / f"c{number}_0000.nii.gz")] for number in (3, 1)]
    report = predictor.predict_from_files(files, [str(tmp_path / "out" / name) for name in ("x", "y")], maps=())
    assert report.predicted == ["x", "y"]
    predictor.predict_from_files(five_images, tmp_path / "folder", maps=())
    np.testing.assert_array_equal(segmentation(tmp_path / "out", "x"), segmentation(tmp_path / "folder", "c3"))
    with pytest.raises(ValueError, match="one path per case"):
        predictor.predict_from_files(files, [str(tmp_path / "out" / "x")])


def test_without_an_output_folder_the_results_are_returned(make_model_folder, images, tmp_path):
    predictor = opened(make_model_folder())
    report = predictor.predict_from_files(images, None, save_probabilities=True)
    (prediction,) = report.predictions
    output = predicted(make_model_folder("again"), images, tmp_path / "out", save_probabilities=True)
    np.testing.assert_array_equal(prediction.segmentation, segmentation(output))
    np.testing.assert_array_equal(prediction.probabilities, probabilities(output))
    assert list(prediction.maps) == ["entropy"]


# --- bad cases ---


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Runs `nnunet_ext predict` into `out` on one CPU core."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)

    def run(images: Path, folder: Path, *flags: str) -> int:
        return main(
            ["predict", "-i", str(images), "-o", str(tmp_path / "out"), "-m", str(folder), "-device", "cpu",
             "--disable_progress_bar", *flags]
        )  # fmt: skip

    return run


def test_a_bad_case_fails_alone_and_leaves_nothing(make_model_folder, five_images, tmp_path, command, capsys):
    damaged, cut = five_images / "c1_0000.nii.gz", five_images / "c4_0000.nii.gz"
    values = voxels(damaged)
    values[1, 5, 5] = np.nan
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(sitk.ReadImage(str(damaged)))
    sitk.WriteImage(image, str(damaged))
    cut.write_bytes(cut.read_bytes()[:-60])
    flags = ("--save_probabilities", "--save_members", "--maps", *MAPS)

    assert command(five_images, make_model_folder(), *flags) == 1
    printed = capsys.readouterr()
    assert "3 predicted, 2 failed" in printed.out
    assert "c1: " in printed.err
    assert str(damaged) in printed.err
    assert "NaN" in printed.err
    assert "c4: " in printed.err
    assert str(cut) in printed.err
    output = tmp_path / "out"
    assert set(table(output)) == {"c0", "c2", "c3"}
    assert not [name for name in files_in(output) if "c1" in name or "c4" in name or ".partial" in name]
    for case in ("c0", "c2", "c3"):
        assert (output / f"{case}.nii.gz").is_file()

    assert command(five_images, make_model_folder("again"), "--continue_prediction", *flags) == 1
    assert "0 predicted, 3 complete before, 2 failed" in capsys.readouterr().out
    for path in (damaged, cut):
        shutil.copy(five_images / "c0_0000.nii.gz", path)
    assert command(five_images, make_model_folder("once more"), "--continue_prediction", *flags) == 0
    assert "2 predicted, 3 complete before, 0 failed" in capsys.readouterr().out
    assert set(table(output)) == {f"c{i}" for i in range(5)}


def test_a_case_that_breaks_the_network_fails_alone(make_model_folder, five_images, tmp_path, monkeypatch):
    predictor = opened(make_model_folder())
    predict_case = predictor.engine.predict_case

    def out_of_memory(name: str, *arguments: Any, **settings: Any) -> Any:
        if name == "c2":
            raise torch.OutOfMemoryError("not enough memory")
        return predict_case(name, *arguments, **settings)

    monkeypatch.setattr(predictor.engine, "predict_case", out_of_memory)
    report = predictor.predict_from_files(five_images, tmp_path / "out")
    assert report.predicted == ["c0", "c1", "c3", "c4"]
    assert "not enough memory" in report.failed["c2"]
    assert set(table(tmp_path / "out")) == {"c0", "c1", "c3", "c4"}


def test_the_command_records_its_flags_and_passes_them_on(make_model_folder, images, tmp_path, command, capsys):
    folder = make_model_folder(folds=(0, 1))
    flags = (
        "-f",
        "1",
        "--members",
        "final",
        "--disable_tta",
        "--tta-members",
        "--maps",
        "variance",
        "--save_members",
    )
    assert command(images, folder, *flags) == 0
    assert f"1 predicted, 0 failed: {tmp_path / 'out'}" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "predict_args.json").read_text(encoding="utf-8"))
    assert [member["name"] for member in record["members"]] == ["fold_1/checkpoint_final"]
    assert record["arguments"]["tta"] == "none"
    assert record["arguments"]["maps"] == ["variance"]
    assert files_in(tmp_path / "out") == {
        *("case.nii.gz", "cases.csv", "predict_args.json", "dataset.json", "plans.json"),
        *("maps/variance/case.nii.gz", "members/fold_1__checkpoint_final+flip-none/case.nii.gz"),
    }


def test_a_folder_without_images_is_refused_by_the_command(make_model_folder, tmp_path, command, capsys):
    (tmp_path / "empty").mkdir()
    assert command(tmp_path / "empty", make_model_folder()) == 1
    assert "CASE_0000.nii.gz" in capsys.readouterr().err


# --- memory ---


class MemoryProbe:
    """Replaces the progress bar: after every member it sums the memory of all live tensors."""

    def __init__(self) -> None:
        self.bytes_after_member: list[int] = []

    def update(self) -> None:
        storages: dict[int, int] = {}
        for thing in gc.get_objects():
            if type(thing) in (torch.Tensor, torch.nn.Parameter):  # torch.compile leaves fake ones without memory
                storage = thing.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        self.bytes_after_member.append(sum(storages.values()))


def test_beside_their_weights_twelve_members_take_no_more_tensors_than_two(
    make_model_folder, write_checkpoint, images, monkeypatch
):
    """No member's logits or probabilities are kept: memory is the same after every member but the first."""
    monkeypatch.setattr(weight_store, "SHARE_OF_MEMORY", 0)
    folder = make_model_folder(folds=())
    for number in range(12):
        write_checkpoint(folder, 0, f"checkpoint_{number:02d}.pth", seed=number)
    peaks = {}
    for count in (2, 12):
        predictor = opened(folder, members=f"checkpoint_*.pth:{count}")
        prepared = predictor.engine.prepare(find_cases(images, ".nii.gz")[0])
        gc.collect()  # what other tests left must not go away in between
        probe = MemoryProbe()
        predictor.engine.predict_case("case", prepared, OutputOptions(maps=MAPS), probe)
        assert len(probe.bytes_after_member) == count
        assert len(set(probe.bytes_after_member[1:])) == 1
        peaks[count] = max(probe.bytes_after_member)
        del predictor, prepared
    assert peaks[2] == peaks[12]


# --- as nnU-Net's own predictor ---


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_inherited_methods_for_arrays_give_the_ensemble(make_model_folder, images, tmp_path, average):
    """At the network's own resolution there is no difference in order, so arrays give what files give."""
    folder = make_model_folder(folds=(0, 1), logit_scale=3, spacing_mm=[1.0, 1.0])
    predictor = opened(folder, average=average)
    assert isinstance(predictor, nnUNetPredictor)
    reader = predictor.plans_manager.image_reader_writer_class()
    image, properties = reader.read_images([str(images / "case_0000.nii.gz")])
    labels, saved = predictor.predict_single_npy_array(image, properties, save_or_return_probabilities=True)
    alone = [
        probabilities(predicted(folder, images, tmp_path / f"fold {fold}", folds=[fold], save_probabilities=True))
        for fold in (0, 1)
    ]
    geometric = np.sqrt(alone[0] * alone[1])  # of averaged logits, up to the normalization
    expected = np.mean(alone, axis=0) if average == "probabilities" else geometric / geometric.sum(0)
    np.testing.assert_allclose(saved, expected, atol=1e-5)
    np.testing.assert_array_equal(labels, expected.argmax(0))


def test_arrays_of_several_resolutions_are_refused(make_model_folder):
    predictor = opened([make_model_folder("first"), make_model_folder("second", **CONFIGURATIONS["3d"])])
    with pytest.raises(MemberError, match="predict_from_files"):
        predictor.predict_logits_from_preprocessed_data(torch.zeros(1, 2, 20, 20))


@pytest.mark.parametrize(
    "folds",
    [
        None,
        ("all",),
        "all",
    ],
)
def test_a_model_folder_opens_as_with_stock(make_model_folder, stock_predictor, images, tmp_path, folds):
    folder = make_model_folder(folds=("all",))
    predictor = EnsemblePredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), folds, "checkpoint_final.pth")
    predictor.predict_from_files(str(images), str(tmp_path / "out"))
    stock = predicted_by_stock(stock_predictor(folder, ("all",), exact=True), images, tmp_path / "stock")
    np.testing.assert_array_equal(segmentation(tmp_path / "out"), segmentation(stock))


@pytest.mark.parametrize(
    "trainer_name",
    [
        "nnUNetTrainerNoMirroring",
        "nnUNetTrainer_5epochs",
        "nnUNet_Trainer_BS8",  # stock, as are nnUNet_Primus_M_Trainer and others,
    ],
)
def test_models_of_stock_trainers_open(make_model_folder, write_checkpoint, trainer_name):
    folder = make_model_folder(folds=())
    write_checkpoint(folder, trainer_name=trainer_name)
    assert opened(folder).trainer_name == trainer_name


def test_trainers_of_the_signature_before_nnunet_2_8_are_served(make_model_folder, images, tmp_path, monkeypatch):
    class OldTrainer(nnUNetTrainer):
        @staticmethod
        def build_network_architecture(  # type: ignore[override]
            architecture_class_name: str,
            arch_init_kwargs: dict,
            arch_init_kwargs_req_import: Sequence[str],
            num_input_channels: int,
            num_output_channels: int,
            enable_deep_supervision: bool = True,
        ) -> torch.nn.Module:
            from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

            return get_network_from_plans(
                architecture_class_name,
                arch_init_kwargs,
                arch_init_kwargs_req_import,
                num_input_channels,
                num_output_channels,
                deep_supervision=enable_deep_supervision,
            )

    folder = make_model_folder()
    expected = segmentation(predicted(folder, images, tmp_path / "new"))
    monkeypatch.setattr("nnunet_ext.models.model.find_trainer", lambda name: OldTrainer)
    np.testing.assert_array_equal(segmentation(predicted(folder, images, tmp_path / "old")), expected)


# --- what is refused before any case runs ---


def test_weights_that_do_not_fit_the_network_are_refused_by_name(make_model_folder, write_checkpoint):
    folder = make_model_folder(folds=(0,))
    other = make_model_folder("other", channels=2, folds=())
    own = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)
    path = write_checkpoint(other, 0, edit=lambda checkpoint: checkpoint.update(init_args=own["init_args"]))
    (folder / "fold_1").mkdir()
    shutil.copy(path, folder / "fold_1" / "checkpoint_final.pth")
    with pytest.raises(MemberError, match="does not fit the network") as refusal:
        opened(folder)
    assert str(folder / "fold_1" / "checkpoint_final.pth") in str(refusal.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param({}, {"labels": {"background": 0, "right": 1, "left": 2}}, id="labels"),
        pytest.param({}, {"labels": {"background": 0, "left": 1}}, id="fewer labels"),
        pytest.param(
            {"labels": REGIONS, "regions_class_order": [1, 2]},
            {"labels": {"background": 0, "core": [2], "whole": [1, 2]}, "regions_class_order": [2, 1]},
            id="order of regions",
        ),
        pytest.param(
            {"labels": REGIONS, "regions_class_order": [1, 2]},
            {"labels": REGIONS, "regions_class_order": [2, 1]},
            id="labels painted in another order",
        ),
        pytest.param(
            {},
            {"channels": 2},
            id="channels",
        ),
    ],
)
def test_model_folders_that_do_not_belong_together_are_refused(make_model_folder, first, second):
    folders = [make_model_folder("first", **first), make_model_folder("second", **second)]
    with pytest.raises(MemberError, match="same") as refusal:
        opened(folders)
    assert all(str(folder) in str(refusal.value) for folder in folders)


def test_the_order_in_which_classes_are_listed_does_not_matter(make_model_folder):
    """Outputs of classes are in the order of their numbers; only those of regions are as dataset.json lists them."""
    reordered = {"right": 2, "left": 1, "background": 0}
    assert len(opened([make_model_folder("first"), make_model_folder("second", labels=reordered)]).engine.models) == 2


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [1, 0], [1, -1], [1, float("nan")]])
def test_weights_must_be_one_positive_number_per_folder(make_model_folder, weights):
    with pytest.raises(MemberError, match="one positive number per model folder"):
        opened([make_model_folder("first"), make_model_folder("second")], model_weights=weights)


def test_no_model_folder_at_all_is_refused():
    with pytest.raises(MemberError, match="at least one model folder"):
        opened([])


def test_other_ways_to_average_and_unknown_maps_are_refused(make_model_folder, images, tmp_path):
    with pytest.raises(ValueError, match="median"):
        opened(make_model_folder(), average="median")
    with pytest.raises(ValueError, match="sharpness"):
        opened(make_model_folder("again")).predict_from_files(images, tmp_path / "out", maps=["sharpness"])
    assert not (tmp_path / "out").exists()
