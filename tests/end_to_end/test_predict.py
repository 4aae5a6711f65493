"""Prediction with a Cyclical model: the stock predictor and `nnunet_ext predict` on the same checkpoints.

The two average differently: the stock predictor blends flips and tiles of the posterior's log probability, ours takes
the mean of what each sample's blended logits give. They agree where the samples have learned to segment and differ in
a few voxels on edges, so these models train until they find nine tenths of the tumour (600 iterations, 10 seconds).
"""

from __future__ import annotations

import csv
import hashlib
import json
import time

import nibabel
import numpy as np
import pytest

TRAINER = "nnUNetTrainerCyclical2_20epochs_30iters"
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
def predict_with_stock_command(plain_dataset, plain_model, run_command, env_line, tmp_path_factory):
    """`predict_with_stock_command(checkpoint)`: the folder that stock nnUNetv2_predict writes."""

    def predict(checkpoint):
        output = tmp_path_factory.mktemp("stock")
        run_command(
            *("nnUNetv2_predict", "-i", plain_dataset.images, "-o", output, "-d", plain_dataset.number, "-c", "2d"),
            *("-tr", TRAINER, "-p", plain_dataset.plans, "-f", 0, "-chk", checkpoint),
            *("-device", "cpu", "-npp", 0, "-nps", 0),
            **env_line,
        )
        return output

    return predict


@pytest.fixture(scope="module")
def samples(plain_dataset, plain_model, run_command, tmp_path_factory):
    """What `nnunet_ext predict --members samples` writes with every file it can write."""
    output = tmp_path_factory.mktemp("samples")
    run_command(
        *("nnunet_ext", "predict", "-i", plain_dataset.images, "-o", output, "-m", plain_model, "-f", 0),
        *("--members", "samples", "--maps", *MAPS, "--save_probabilities", "--save_members", "-device", "cpu"),
    )
    return output


@pytest.fixture(scope="module")
def region_results(region_dataset, train_here, predict_with_stock, predict_here, tmp_path_factory):
    """The same model and comparison for a dataset with regions: what samples give, and the stock predictor's."""
    train_here(region_dataset, "2d", 0, TRAINER)
    root, model = tmp_path_factory.mktemp("regions"), region_dataset.model(TRAINER, "2d")
    stock = predict_with_stock(model, region_dataset.images, root / "stock", checkpoint="checkpoint_posterior.pth")
    flags = ["-m", model, "--members", "samples", "--maps", *MAPS]
    return predict_here(region_dataset.images, root / "samples", *flags), stock


def mean_dice(found, truth):
    """Dice of labels 1 and 2 over all cases together, then their mean."""
    first, second = (np.concatenate([labels[case].ravel() for case in CASES]) for labels in (found, truth))
    overlaps = [2 * np.sum((first == k) & (second == k)) / (np.sum(first == k) + np.sum(second == k)) for k in (1, 2)]
    return np.mean(overlaps)


def read_map(folder, name, case):
    return nibabel.load(folder / "maps" / name / f"{case}.nii.gz")


def probabilities(folder, case):
    """(C, z, y, x)"""
    return np.load(folder / f"{case}.npz")["probabilities"]


def test_the_stock_predictor_runs_the_whole_posterior(predict_with_stock_command, samples, agreement):
    stock = predict_with_stock_command("checkpoint_posterior.pth")
    assert agreement(stock, samples) >= 0.999


def test_the_stock_predictor_runs_the_final_weights(
    predict_with_stock_command, predict_here, plain_dataset, plain_model, tmp_path, agreement
):
    stock = predict_with_stock_command("checkpoint_final.pth")
    ours = predict_here(plain_dataset.images, tmp_path / "final", "-m", plain_model, "-f", 0)
    assert agreement(stock, ours) >= 0.999


def test_posterior_and_samples_agree_on_regions_with_an_ignore_label(region_results, agreement, labels_in):
    samples, stock = region_results
    assert agreement(stock, samples) >= 0.999
    assert {label for case in labels_in(samples).values() for label in np.unique(case)} == {0, 1, 2}


def test_the_models_have_learned_something(samples, region_results, plain_dataset, region_dataset, labels_in):
    # or else agreement would be that of two images of background
    assert mean_dice(labels_in(samples), labels_in(plain_dataset.raw / "labelsTs")) > 0.8
    assert mean_dice(labels_in(region_results[0]), labels_in(region_dataset.raw / "labelsTs")) > 0.8


@pytest.mark.parametrize("dataset", ["plain", "regions"])
def test_maps_lie_on_the_image(dataset, samples, region_results, plain_dataset, region_dataset):
    folder, images = {
        "plain": (samples, plain_dataset.images),
        "regions": (region_results[0], region_dataset.images),
    }[dataset]
    for case in CASES:
        image = nibabel.load(images / f"{case}_0000.nii.gz")
        for found in [nibabel.load(folder / f"{case}.nii.gz"), *(read_map(folder, name, case) for name in MAPS)]:
            assert found.shape == image.shape
            # spacing, origin and direction in one; float32 headers
            np.testing.assert_allclose(found.affine, image.affine, atol=1e-4)


@pytest.mark.parametrize("dataset", ["plain", "regions"])
def test_entropy_is_between_0_and_1_and_mutual_information_is_part_of_it(dataset, samples, region_results):
    folder = {"plain": samples, "regions": region_results[0]}[dataset]
    for case in CASES:
        entropy, information = (read_map(folder, name, case).get_fdata() for name in MAPS)
        assert read_map(folder, "entropy", case).get_data_dtype() == np.float32
        assert entropy.min() >= 0
        assert 0.1 < entropy.max() <= 1
        assert information.min() >= 0
        assert information.max() > 0
        assert np.all(information <= entropy)


@pytest.mark.parametrize("dataset", ["plain", "regions"])
@pytest.mark.parametrize("name", MAPS)
def test_wrong_voxels_are_more_uncertain_than_right_ones(
    dataset, name, samples, region_results, plain_dataset, region_dataset, labels_in
):
    folder, raw = {
        "plain": (samples, plain_dataset.raw),
        "regions": (region_results[0], region_dataset.raw),
    }[dataset]
    found, truth = labels_in(folder), labels_in(raw / "labelsTs")
    for case in CASES:
        uncertainty, wrong = read_map(folder, name, case).get_fdata(), found[case] != truth[case]
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


def test_a_killed_prediction_leaves_whole_files_and_is_completed(
    plain_dataset, plain_model, start_command, predict_here, tmp_path, labels_in
):
    output = tmp_path / "killed"
    flags = ["-m", plain_model, "-f", 0, "--members", "samples", "--maps", *MAPS, "-step_size", 0.05]
    expected = predict_here(plain_dataset.images, tmp_path / "expected", *flags)
    process = start_command(
        "nnunet_ext", "predict", "-i", plain_dataset.images, "-o", output, "-device", "cpu", *flags
    )
    kill_once_there(process, output / f"{CASES[0]}.nii.gz")

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


def kill_once_there(process, path):
    """Waits for a file and kills the process at once, as kill -9 does."""
    while not path.is_file():
        assert process.poll() is None, "the prediction ended before its first case was written"
        time.sleep(0.002)
    process.kill()
    process.wait()


def files_outside_staging(folder):
    """Names of the files that are not under a temporary name, relative to the folder."""
    return sorted(
        str(path.relative_to(folder).as_posix())
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".partial-") for part in path.relative_to(folder).parts)
    )
