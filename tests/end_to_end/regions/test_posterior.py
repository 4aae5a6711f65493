"""2d of a dataset with regions and an ignore label: the stock predictor's posterior, and samples in `nnunet_ext`.

As in labels/test_predict.py: the two agree where the samples have learned to segment, so this model trains longer.
"""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

TRAINER = "nnUNetTrainerCyclical2_20epochs_15iters"
MAPS = ["entropy", "mutual_information"]
CASES = ["tumour_006", "tumour_007"]


@pytest.fixture(scope="module")
def model(region_dataset, train_here):
    train_here(region_dataset, "2d", 0, TRAINER)
    return region_dataset.model(TRAINER, "2d")


@pytest.fixture(scope="module")
def samples(region_dataset, model, predict_here, tmp_path_factory):
    flags = ["-m", model, "--members", "samples", "--maps", *MAPS]
    return predict_here(region_dataset.images, tmp_path_factory.mktemp("samples"), *flags)


def read_maps(folder, case):
    return {name: nibabel.load(folder / "maps" / name / f"{case}.nii.gz") for name in MAPS}


def test_posterior_and_samples_agree(region_dataset, model, samples, predict_with_stock, tmp_path, agreement):
    stock = predict_with_stock(
        model, region_dataset.images, tmp_path / "stock", checkpoint="checkpoint_posterior.pth"
    )
    assert agreement(stock, samples) >= 0.999


def test_the_ignore_label_is_never_predicted(samples, labels_in):
    assert {label for case in labels_in(samples).values() for label in np.unique(case)} == {0, 1, 2}


def test_the_model_has_learned_something(samples, region_dataset, mean_dice):
    # or else agreement would be that of two images of background
    assert mean_dice(samples, region_dataset.raw / "labelsTs") > 0.8


def test_maps_lie_on_the_image_and_mutual_information_is_part_of_entropy(samples, region_dataset):
    for case in CASES:
        image, maps = nibabel.load(region_dataset.images / f"{case}_0000.nii.gz"), read_maps(samples, case)
        for found in [nibabel.load(samples / f"{case}.nii.gz"), *maps.values()]:
            assert found.shape == image.shape
            # spacing, origin and direction in one; float32 headers
            np.testing.assert_allclose(found.affine, image.affine, atol=1e-4)
        assert maps["entropy"].get_data_dtype() == np.float32
        entropy, information = (found.get_fdata() for found in maps.values())
        assert entropy.min() >= 0
        assert 0.1 < entropy.max() <= 1
        assert information.min() >= 0
        assert information.max() > 0
        assert np.all(information <= entropy)


def test_wrong_voxels_are_more_uncertain_than_right_ones(samples, region_dataset, labels_in):
    found, truth = labels_in(samples), labels_in(region_dataset.raw / "labelsTs")
    for case in CASES:
        wrong = found[case] != truth[case]
        for uncertainty in (nifti.get_fdata() for nifti in read_maps(samples, case).values()):
            assert uncertainty[wrong].mean() > 2 * uncertainty[~wrong].mean()
