"""Cases with the lesions of others, as nnU-Net's loader asks for them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_ext.trainers.augmentation.carve_mix import (
    CarvedCases,
    CarveOptions,
    mixed,
    partners_of,
    require_same_intensities,
    shift_between,
    voxel_spacing_mm,
)

OPTIONS = CarveOptions(labels=(1,), transpose_forward=(0, 1, 2), probability=1.0)
EVERY = (slice(None),) * 4


def case(value, lesion=None, *, crop=((0, 12),) * 3, spacing=(1.0, 1.0, 1.0), before=(12, 12, 12)):
    """Image of one value, a cubic lesion from the index `lesion` on with the side 5, and nnU-Net's properties."""
    shape = tuple(last - first for first, last in crop)
    labels = np.zeros((1, *shape), dtype=np.int8)
    if lesion is not None:
        labels[(0, *(slice(first, first + 5) for first in lesion))] = 1
    properties = {
        "shape_before_cropping": before,
        "spacing": spacing,
        "bbox_used_for_cropping": crop,
        "class_locations": {1: np.argwhere(labels)},
    }
    return np.full((1, *shape), float(value)), labels, None, properties


class Cases:
    """A dataset of nnU-Net's in memory."""

    def __init__(self, **cases):
        self.cases = cases
        self.identifiers = list(cases)

    def load_case(self, identifier):
        return self.cases[identifier]


class Middle:
    """A generator in the middle of what it is asked for: D < m / 4, the lesion but for its corners."""

    def uniform(self, low=0.0, high=1.0):
        return (low + high) / 2

    def randint(self, number):
        return 0


def test_image_and_labels_of_the_carving_are_the_other_case_s():
    """A cube of side 5: m = 2, so t = 1/2, and all voxels with D of 0, -1, -2 are taken: the lesion."""
    image, labels, _, properties = mixed(case(1), case(7, (4, 4, 4)), OPTIONS, Middle())
    whole = image[EVERY]
    assert (whole == 7).sum() == 5**3
    assert np.array_equal(whole[0] == 7, labels[EVERY][0] == 1)
    assert whole[0, 4, 4, 4] == 7
    assert np.array_equal(np.unique(properties["class_locations"][1], axis=0), np.argwhere(labels[EVERY]))


def test_lesions_of_the_case_itself_stay_outside_the_carving():
    _, labels, _, properties = mixed(case(1, (0, 0, 0)), case(7, (4, 4, 4)), OPTIONS, Middle())
    assert labels[EVERY].sum() == 2 * 5**3 - 1  # they share a voxel
    assert np.array_equal(np.unique(properties["class_locations"][1], axis=0), np.argwhere(labels[EVERY]))


def test_crops_of_the_same_grid_are_laid_over_each_other():
    """The other image was cropped from index 2 on, so that its voxel (1, 1, 1) is (3, 3, 3) here."""
    other = case(7, (1, 1, 1), crop=((2, 12),) * 3)
    assert shift_between(other[3], case(1)[3], (10, 10, 10)) == (2, 2, 2)
    image = mixed(case(1), other, OPTIONS, Middle())[0][EVERY]
    assert np.array_equal(np.argwhere(image[0] == 7).min(axis=0), [3, 3, 3])
    cropped = mixed(case(1, crop=((5, 12),) * 3), other, OPTIONS, Middle())
    assert (cropped[0][EVERY] == 7).sum() == 3**3  # the rest lies outside
    assert cropped[3]["class_locations"][1].max() <= 2


def test_the_spacing_is_that_after_resampling_along_nnunet_s_axes():
    properties = case(1, spacing=(5.0, 1.0, 2.0))[3]
    assert voxel_spacing_mm(properties, (12, 24, 6), (1, 2, 0)) == (1.0, 1.0, 10.0)


def test_without_a_lesion_the_case_stays_as_it_is():
    own = case(1)
    assert mixed(own, case(7), OPTIONS, Middle()) is own


def test_only_cases_of_the_same_grid_are_partners():
    cases = Cases(a=case(1), b=case(2), c=case(3, spacing=(2.0, 1.0, 1.0)), d=case(4, before=(13, 12, 12)))
    assert partners_of(cases) == {"a": ["b"], "b": ["a"], "c": [], "d": []}
    with pytest.raises(ValueError, match="same shape and spacing"):
        partners_of(Cases(a=case(1), c=case(3, spacing=(2.0, 1.0, 1.0))))


def test_a_case_without_partner_or_chance_is_loaded_as_it_is():
    cases = Cases(a=case(1), b=case(2, (4, 4, 4)))
    never = CarvedCases(cases, {"a": ["b"], "b": ["a"]}, CarveOptions((1,), (0, 1, 2), probability=0.0))
    alone = CarvedCases(cases, {"a": [], "b": []}, OPTIONS)
    for dataset in (never, alone):
        assert dataset.identifiers == ["a", "b"]
        assert dataset.load_case("a") is cases.load_case("a")


def test_images_without_a_common_scale_are_refused():
    require_same_intensities(["CTNormalization", "ZScoreNormalization"])
    with pytest.raises(ValueError, match="found NoNormalization"):
        require_same_intensities(["ZScoreNormalization", "NoNormalization"])


def test_nnunet_s_loader_gives_carved_patches(make_trainer, preprocessed_cases):
    """Case 1 is 1 everywhere, case 2 is 7 in its lesion, a block in the middle: the first gets some of the second."""
    trainer = make_trainer("nnUNetTrainerCarveMix", carve_probability=1.0)
    preprocessed_cases(trainer)
    trainer.plans_manager.plans["transpose_forward"] = [0, 1, 2]
    trainer.configuration_manager.configuration["normalization_schemes"] = ["ZScoreNormalization"]
    folder = Path(trainer.preprocessed_dataset_folder)
    labels = np.zeros((1, 3, 40, 40), dtype=np.int8)
    labels[:, :, 12:28, 12:28] = 1
    for name, image, segmentation in (
        ("case1", np.ones_like(labels, dtype=np.float32), np.zeros_like(labels)),
        ("case2", 1 + 6 * labels.astype(np.float32), labels),
    ):
        properties = nnUNetDatasetBlosc2(str(folder)).load_case(name)[3]
        properties["class_locations"] = {1: np.argwhere(segmentation)}
        for file in folder.glob(f"{name}*"):
            file.unlink()
        blocks = {"chunks": image.shape, "blocks": image.shape}
        nnUNetDatasetBlosc2.save_case(image, segmentation, properties, str(folder / name), **blocks)
    training, validation = trainer.get_tr_and_val_datasets()
    image, segmentation, _, _ = training.load_case("case1")
    part = (slice(None), slice(0, 3), slice(0, 40), slice(0, 40))
    assert np.array_equal(image[part][0] == 7, segmentation[part][0] == 1)
    assert type(validation) is nnUNetDatasetBlosc2

    np.random.seed(0)
    loader = trainer.get_dataloaders()[0]
    batches = [next(loader) for _ in range(4)]
    assert all(torch.isfinite(batch["data"]).all() for batch in batches)
    assert any((batch["target"][0] == 1).any() for batch in batches)
