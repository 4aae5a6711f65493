"""Prediction with a Cyclical model: the stock predictor and `nnunet_ext predict` on the same checkpoints.

The two average differently: the stock predictor blends flips and tiles of the posterior's log probability, ours takes
the mean of what each sample's blended logits give. They agree where the samples have learned to segment and differ in
a few voxels on edges, so this model trains until it finds nine tenths of the tumour (300 iterations, 8 seconds).
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import sys
import time

import nibabel
import numpy as np
import pytest

TRAINER = "nnUNetTrainerCyclical2_20epochs_15iters"
SAMPLES = [
    "checkpoint_c0_e0008.pth",
    "checkpoint_c0_e0009.pth",
    "checkpoint_c1_e0018.pth",
    "checkpoint_c1_e0019.pth",
]
MAPS = ["entropy", "mutual_information"]
CASES = ["tumour_006", "tumour_007"]


@pytest.fixture(scope="module")
def plain_model(plain_dataset, train_here):
    train_here(plain_dataset, "2d", 0, TRAINER)
    return plain_dataset.model(TRAINER, "2d")


@pytest.fixture(scope="module")
def samples(plain_dataset, plain_model, run_command, tmp_path_factory):
    """What `nnunet_ext predict --members samples` writes with every file it can write, in a process of its own."""
    output = tmp_path_factory.mktemp("samples")
    run_command(
        *("nnunet_ext", "predict", "-i", plain_dataset.images, "-o", output, "-m", plain_model, "-f", 0),
        *("--members", "samples", "--maps", *MAPS, "--save_probabilities", "--save_members", "-device", "cpu"),
    )
    return output


def read_map(folder, name, case):
    return nibabel.load(folder / "maps" / name / f"{case}.nii.gz")


def probabilities(folder, case):
    """(C, z, y, x)"""
    return np.load(folder / f"{case}.npz")["probabilities"]


def test_the_stock_command_runs_the_whole_posterior(
    plain_dataset, plain_model, run_command, env_line, samples, tmp_path, agreement
):
    run_command(
        *("nnUNetv2_predict", "-i", plain_dataset.images, "-o", tmp_path, "-d", plain_dataset.number, "-c", "2d"),
        *("-tr", TRAINER, "-p", plain_dataset.plans, "-f", 0, "-chk", "checkpoint_posterior.pth"),
        *("-device", "cpu", "-npp", 0, "-nps", 0),
        **env_line,
    )
    assert agreement(tmp_path, samples) >= 0.999


def test_the_stock_predictor_runs_the_final_weights(
    predict_with_stock, predict_here, plain_dataset, plain_model, tmp_path, agreement
):
    stock = predict_with_stock(plain_model, plain_dataset.images, tmp_path / "stock")
    ours = predict_here(plain_dataset.images, tmp_path / "final", "-m", plain_model, "-f", 0)
    assert agreement(stock, ours) >= 0.999


def test_the_model_has_learned_something(samples, plain_dataset, mean_dice):
    # or else agreement would be that of two images of background
    assert mean_dice(samples, plain_dataset.raw / "labelsTs") > 0.8


def test_maps_lie_on_the_image(samples, plain_dataset):
    for case in CASES:
        image = nibabel.load(plain_dataset.images / f"{case}_0000.nii.gz")
        for found in [nibabel.load(samples / f"{case}.nii.gz"), *(read_map(samples, name, case) for name in MAPS)]:
            assert found.shape == image.shape
            # spacing, origin and direction in one; float32 headers
            np.testing.assert_allclose(found.affine, image.affine, atol=1e-4)


def test_entropy_is_between_0_and_1_and_mutual_information_is_part_of_it(samples):
    for case in CASES:
        entropy, information = (read_map(samples, name, case).get_fdata() for name in MAPS)
        assert read_map(samples, "entropy", case).get_data_dtype() == np.float32
        assert entropy.min() >= 0
        assert 0.1 < entropy.max() <= 1
        assert information.min() >= 0
        assert information.max() > 0
        assert np.all(information <= entropy)


@pytest.mark.parametrize("name", MAPS)
def test_wrong_voxels_are_more_uncertain_than_right_ones(name, samples, plain_dataset, labels_in):
    found, truth = labels_in(samples), labels_in(plain_dataset.raw / "labelsTs")
    for case in CASES:
        uncertainty, wrong = read_map(samples, name, case).get_fdata(), found[case] != truth[case]
        assert uncertainty[wrong].mean() > 2 * uncertainty[~wrong].mean()


def test_the_mean_of_single_member_runs_is_the_ensembles_probability(
    samples, predict_here, plain_dataset, plain_model, tmp_path
):
    runs = [
        predict_here(
            *(plain_dataset.images, tmp_path / sample, "-m", plain_model, "-f", 0, "--members", sample),
            *("--maps", "none", "--save_probabilities"),
        )
        for sample in SAMPLES
    ]
    for case in CASES:
        mean = np.mean([probabilities(run, case).astype(np.float64) for run in runs], axis=0)
        np.testing.assert_allclose(probabilities(samples, case), mean, atol=1e-3)
        # entropy of that mean, in nats over ln 3, axes (z, y, x) to NIfTI's (x, y, z)
        entropy = -np.sum(mean * np.log(np.clip(mean, 1e-12, None)), axis=0) / np.log(3)
        np.testing.assert_allclose(read_map(samples, "entropy", case).get_fdata(), entropy.T, atol=2e-3)


def test_the_segmentation_is_the_most_probable_label(samples, labels_in):
    for case, labels in labels_in(samples).items():
        np.testing.assert_array_equal(labels, probabilities(samples, case).argmax(0).T)


def test_the_output_is_a_prediction_folder_of_nnunet_with_the_run_described(samples, plain_dataset, plain_model):
    names = {path.name for path in samples.iterdir()}
    files = {f"{case}{ending}" for case in CASES for ending in (".nii.gz", ".npz", ".pkl")}
    described = {"cases.csv", "predict_args.json", "dataset.json", "plans.json"}
    assert names == files | described | {"maps", "members"}

    run = json.loads((samples / "predict_args.json").read_text(encoding="utf-8"))
    assert run["arguments"]["members"] == "samples"
    assert [member["name"] for member in run["members"]] == [f"fold_0/{name[:-4]}" for name in SAMPLES]
    for member, name in zip(run["members"], SAMPLES, strict=True):
        content = (plain_model / "fold_0" / name).read_bytes()
        assert member["sha256"] == hashlib.sha256(content).hexdigest()
    for name in ("dataset.json", "plans.json"):
        assert json.loads((samples / name).read_text()) == json.loads((plain_model / name).read_text())


def test_the_table_measures_the_cases(samples, labels_in):
    with (samples / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == CASES
    for row, (case, labels) in zip(rows, labels_in(samples).items(), strict=True):
        voxel_ml = abs(np.linalg.det(nibabel.load(samples / f"{case}.nii.gz").affine[:3, :3])) / 1000
        assert row["members"] == "4"
        assert float(row["mean_entropy"]) == pytest.approx(
            read_map(samples, "entropy", case).get_fdata().mean(), rel=1e-4
        )
        assert float(row["volume_ml_core"]) == pytest.approx(np.sum(labels == 2) * voxel_ml, rel=1e-4)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks a process with torch in it")
def test_a_killed_prediction_leaves_whole_files_and_is_completed(
    plain_dataset, plain_model, predict_here, tmp_path, labels_in
):
    output = tmp_path / "killed"
    flags = ["-m", plain_model, "-f", 0, "--members", "samples", "--maps", *MAPS, "-step_size", 0.2]
    expected = predict_here(plain_dataset.images, tmp_path / "expected", *flags)
    child = os.fork()  # has everything imported already
    if child == 0:
        try:
            predict_here(plain_dataset.images, output, *flags)
        finally:
            os._exit(0)
    kill_once_there(child, output / f"{CASES[0]}.nii.gz")

    whole = files_outside_staging(output)
    assert f"{CASES[0]}.nii.gz" in whole
    assert f"{CASES[1]}.nii.gz" not in whole, "the kill came too late to show anything"
    for name in whole:
        if name.endswith(".nii.gz"):
            np.testing.assert_allclose(
                nibabel.load(output / name).get_fdata(), nibabel.load(expected / name).get_fdata(), atol=1e-4
            )
    first_written = (output / f"{CASES[0]}.nii.gz").stat().st_mtime_ns

    predict_here(plain_dataset.images, output, *flags, "--continue_prediction")
    assert files_outside_staging(output) == files_outside_staging(expected)
    assert list(output.glob(".partial-*")) == []
    for case, labels in labels_in(expected).items():
        np.testing.assert_array_equal(labels_in(output)[case], labels)
    assert (output / f"{CASES[0]}.nii.gz").stat().st_mtime_ns == first_written
    with (output / "cases.csv").open(newline="") as file:
        assert [row["case"] for row in csv.DictReader(file)] == CASES


def kill_once_there(child, path):
    """Waits for a file and kills the process at once, as kill -9 does."""
    while not path.is_file():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the prediction ended before its first case was written"
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def files_outside_staging(folder):
    """Names of the files that are not under a temporary name, relative to the folder."""
    return sorted(
        str(path.relative_to(folder).as_posix())
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".partial-") for part in path.relative_to(folder).parts)
    )
