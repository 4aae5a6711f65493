"""3d_lowres, its cascade and 3d_fullres of a dataset with regions and an ignore label; fold all; no checkpoints.

The first stage trains until it finds the tumour, the others just so that every file and every path is there.
test_posterior.py has the 2d.
"""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import torch

from nnunet_ext.files.checkpoints import load_checkpoint

# T = 4, M = 2: T_c = 2 and the plateau begins at floor(0.8 * 2) = 1, so epochs 1 and 3 are sampled.
TRAINER = "nnUNetTrainerCyclical2_4epochs_2iters"
SAMPLES = ["checkpoint_c0_e0001.pth", "checkpoint_c1_e0003.pth"]
OTHERS = ["checkpoint_best.pth", "checkpoint_final.pth", "checkpoint_posterior.pth", "checkpoint_swa.pth"]
MAPS = ["entropy", "mutual_information", "expected_entropy", "variance", "confidence"]
CASES = ["tumour_006", "tumour_007"]


@pytest.fixture(scope="module")
def lowres(region_dataset, train_here):
    """Fold all, whose validation predicts all cases for the second stage."""

    def train_longer(trainer):
        trainer.num_iterations_per_epoch = 20

    train_here(region_dataset, "3d_lowres", "all", TRAINER, validate=True, prepare=train_longer)
    return region_dataset.model(TRAINER, "3d_lowres")


@pytest.fixture(scope="module")
def cascade(region_dataset, train_here, lowres):
    train_here(region_dataset, "3d_cascade_fullres", 0, TRAINER, validate=True)
    return region_dataset.model(TRAINER, "3d_cascade_fullres")


@pytest.fixture(scope="module")
def fullres(region_dataset, train_here):
    train_here(region_dataset, "3d_fullres", 0, TRAINER)
    return region_dataset.model(TRAINER, "3d_fullres")


@pytest.fixture(scope="module")
def lowres_results(region_dataset, lowres, predict_with_stock, predict_here, tmp_path_factory):
    """The first stage's segmentations: stock's and ours."""
    root, flags = tmp_path_factory.mktemp("lowres"), ["-m", lowres, "--maps", "none"]
    stock = predict_with_stock(lowres, region_dataset.images, root / "stock", folds=("all",), fp32_sums=True)
    return predict_here(region_dataset.images, root / "ours", *flags), stock


@pytest.fixture(scope="module")
def cascade_samples(region_dataset, cascade, lowres_results, predict_here, tmp_path_factory):
    flags = ["-m", cascade, "--members", "samples", "--maps", *MAPS, "-prev_stage_predictions", lowres_results[1]]
    return predict_here(region_dataset.images, tmp_path_factory.mktemp("cascade"), *flags)


@pytest.mark.parametrize(
    ("configuration", "fold"), [("lowres", "fold_all"), ("cascade", "fold_0"), ("fullres", "fold_0")]
)
def test_each_configuration_leaves_the_same_files(request, configuration, fold):
    folder = request.getfixturevalue(configuration) / fold
    assert sorted(path.name for path in folder.glob("*.pth")) == sorted([*SAMPLES, *OTHERS])
    samples = json.loads((folder / "samples.json").read_text(encoding="utf-8"))["samples"]
    assert [sample["file"] for sample in samples] == SAMPLES
    assert load_checkpoint(folder / "checkpoint_posterior.pth")["network_weights"]["regions"].item()


def test_fold_all_validates_all_cases_and_prepares_the_next_stage(lowres, region_dataset):
    cases = sorted(path.name for path in (region_dataset.raw / "labelsTr").iterdir())
    validated = sorted(path.name for path in (lowres / "fold_all" / "validation").glob("*.nii.gz"))
    prepared = {path.stem for path in (lowres / "predicted_next_stage" / "3d_cascade_fullres").glob("*.b2nd")}
    assert validated == cases
    assert prepared == {case.removesuffix(".nii.gz") for case in cases}


def test_the_cascade_saw_the_first_stage(cascade):
    # two channels of the image and one for each of the labels 1 and 2 of the first stage
    weights = load_checkpoint(cascade / "fold_0" / SAMPLES[0])["network_weights"]
    first = next(tensor for tensor in weights.values() if tensor.ndim == 5)
    assert first.shape[1] == 4


def test_disabled_checkpointing_trains_and_validates_without_a_checkpoint(region_dataset, train_here):
    name = f"{TRAINER}_member3"
    train_here(region_dataset, "3d_fullres", 1, name, validate=True, disable_checkpointing=True)
    folder = region_dataset.model(name, "3d_fullres") / "fold_1"
    assert list(folder.glob("*.pth")) == []
    assert not (folder / "samples.json").exists()
    assert (folder / "validation" / "summary.json").is_file()


def test_the_first_stage_is_predicted_as_stock_does(lowres_results, agreement, labels_in):
    ours, stock = lowres_results
    assert agreement(ours, stock) == 1
    assert all(np.any(labels == 1) for labels in labels_in(ours).values())


def test_the_second_stage_is_predicted_as_stock_does(
    region_dataset, cascade, lowres_results, predict_with_stock, predict_here, tmp_path, agreement
):
    previous = lowres_results[1]
    stock = predict_with_stock(
        cascade, region_dataset.images, tmp_path / "stock", fp32_sums=True, previous_stage=previous
    )
    flags = ["-m", cascade, "--maps", "none", "-prev_stage_predictions", previous]
    assert agreement(predict_here(region_dataset.images, tmp_path / "ours", *flags), stock) == 1


def test_the_stock_predictor_reads_the_posterior_of_a_cascade(
    region_dataset, cascade, lowres_results, predict_with_stock, tmp_path, labels_in
):
    stock = predict_with_stock(
        *(cascade, region_dataset.images, tmp_path / "stock"),
        checkpoint="checkpoint_posterior.pth",
        previous_stage=lowres_results[1],
    )
    assert list(labels_in(stock)) == CASES


def test_without_the_first_stage_the_cascade_says_what_it_needs(
    region_dataset, cascade, predict_here, tmp_path, capsys
):
    predict_here(region_dataset.images, tmp_path / "out", "-m", cascade, status=1)
    assert "-prev_stage_predictions" in capsys.readouterr().err


def test_the_ignore_label_is_never_predicted(cascade_samples, labels_in):
    for labels in labels_in(cascade_samples).values():
        assert set(np.unique(labels)) <= {0, 1, 2}


def test_maps_of_regions_lie_on_the_image_and_are_between_0_and_1(cascade_samples, region_dataset):
    for case in CASES:
        image = nibabel.load(region_dataset.images / f"{case}_0000.nii.gz")
        maps = {name: nibabel.load(cascade_samples / "maps" / name / f"{case}.nii.gz") for name in MAPS}
        for found in maps.values():
            assert found.shape == image.shape
            np.testing.assert_allclose(found.affine, image.affine, atol=1e-4)
        values = {name: found.get_fdata() for name, found in maps.items()}
        assert all(value.min() >= 0 and value.max() <= 1 for value in values.values())
        assert np.all(values["mutual_information"] <= values["entropy"])
        # entropy = expected entropy + mutual information
        np.testing.assert_allclose(
            values["entropy"], values["expected_entropy"] + values["mutual_information"], atol=1e-5
        )


def test_configurations_of_other_resolution_are_averaged_in_the_image(
    region_dataset, lowres, fullres, predict_here, tmp_path
):
    both = predict_here(
        *(region_dataset.images, tmp_path / "both", "-m", lowres, "-m", fullres),
        *("--maps", "none", "--save_probabilities"),
    )
    single = [
        predict_here(
            *(region_dataset.images, tmp_path / name, "-m", model, "--maps", "none", "--save_probabilities"),
        )
        for name, model in (("lowres", lowres), ("fullres", fullres))
    ]
    for case in CASES:
        mean = np.mean([np.load(folder / f"{case}.npz")["probabilities"] for folder in single], axis=0)
        np.testing.assert_allclose(np.load(both / f"{case}.npz")["probabilities"], mean, atol=1e-3)


def test_weights_of_the_mean_are_the_mean_of_the_last_cycles_samples(fullres):
    # one sample in the last cycle: it is its own mean
    fold_folder = fullres / "fold_0"
    mean, sample = (load_checkpoint(fold_folder / name)["network_weights"] for name in (OTHERS[3], SAMPLES[1]))
    assert all(torch.equal(mean[key], tensor) for key, tensor in sample.items())
