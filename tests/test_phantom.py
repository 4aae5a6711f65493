"""Phantoms are test data themselves: these tests define what other tests may rely on."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nnunetv2.experiment_planning.verify_dataset_integrity import check_cases, verify_labels
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from scipy.ndimage import binary_dilation

from nnunet_ext.phantom import cardiac_case, tumour_case, write_cardiac_dataset, write_regions_dataset

RV, MYO, LV = 1, 2, 3


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


@pytest.mark.parametrize("vendor", ["a", "b"])
def test_the_same_seed_gives_the_same_heart(vendor):
    first, second = cardiac_case(7, vendor), cardiac_case(7, vendor)
    assert first.image.tobytes() == second.image.tobytes()
    assert first.labels.tobytes() == second.labels.tobytes()
    assert first.spacing_mm == second.spacing_mm


def test_another_seed_gives_another_heart():
    same_grid = {"slices": 8, "in_plane_shape": (96, 96)}
    assert (cardiac_case(0, **same_grid).labels != cardiac_case(1, **same_grid).labels).any()


@pytest.mark.parametrize("vendor", ["a", "b"])
@pytest.mark.parametrize("seed", range(4))
def test_a_heart_has_the_size_and_spacing_that_the_docstring_says(seed, vendor):
    image, labels, (slice_mm, y_mm, x_mm) = cardiac_case(seed, vendor)
    assert image.dtype == np.float32 and labels.dtype == np.uint8
    assert image.shape == labels.shape
    assert 8 <= image.shape[0] <= 10
    assert all(96 <= n <= 128 for n in image.shape[1:])
    assert 8 <= slice_mm <= 10
    assert y_mm == x_mm and 1.4 <= x_mm <= 1.8
    assert np.isfinite(image).all()
    assert set(np.unique(labels)) == {0, RV, MYO, LV}


def test_size_can_be_chosen():
    assert cardiac_case(0, slices=3, in_plane_shape=(64, 80)).image.shape == (3, 64, 80)


def test_an_unknown_vendor_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="one of a, b; found 'c'"):
        cardiac_case(0, "c")


@pytest.mark.parametrize("seed", range(4))
def test_myocardium_encloses_the_left_ventricle_in_the_middle_of_the_stack(seed):
    labels = cardiac_case(seed).labels[4]
    rim = binary_dilation(labels == LV) & (labels != LV)
    assert rim.any()
    assert (labels[rim] == MYO).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_right_ventricle_lies_against_the_myocardium_on_the_left_of_the_image(seed):
    labels = cardiac_case(seed).labels[2]
    assert (binary_dilation(labels == RV) & (labels == MYO)).any()
    assert np.nonzero(labels == RV)[1].mean() < np.nonzero(labels == LV)[1].mean()  # columns, x to the right


@pytest.mark.parametrize("seed", range(4))
def test_the_heart_gets_smaller_towards_the_apex(seed):
    areas = np.count_nonzero(cardiac_case(seed).labels, axis=(1, 2))
    assert areas[-1] < 0.25 * areas[3]


def test_end_slices_are_difficult_because_unlabelled_blood_is_as_bright_as_labelled():
    image, labels, _ = cardiac_case(0)  # its first slice lies above the valve plane
    assert not labels[0].any()
    ventricle = np.median(image[2][labels[2] == LV])
    # the atrium fills about the place that the ventricle has two slices further down
    assert np.median(image[0][labels[2] == LV]) == pytest.approx(ventricle, rel=0.2)


def test_vendor_b_shows_blood_against_myocardium_with_less_contrast_to_noise():
    def contrast_to_noise(vendor):
        values = []
        for seed in range(3):
            image, labels, _ = cardiac_case(seed, vendor)
            blood, wall = image[3][labels[3] == LV], image[3][labels[3] == MYO]
            values.append((np.median(blood) - np.median(wall)) / blood.std())
        return np.mean(values)

    assert 0 < contrast_to_noise("b") < 0.5 * contrast_to_noise("a")


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    return write_cardiac_dataset(tmp_path_factory.mktemp("raw"), training_cases=2, test_cases=1)


def test_cardiac_dataset_is_laid_out_as_nnunet_expects(hearts):
    assert hearts.name == "Dataset990_PhantomHeart"
    assert names(hearts / "imagesTr") == ["vendor_a_000_0000.nii.gz", "vendor_a_001_0000.nii.gz"]
    assert names(hearts / "labelsTr") == ["vendor_a_000.nii.gz", "vendor_a_001.nii.gz"]
    assert names(hearts / "imagesTs") == ["vendor_a_002_0000.nii.gz", "vendor_b_002_0000.nii.gz"]
    assert names(hearts / "labelsTs") == ["vendor_a_002.nii.gz", "vendor_b_002.nii.gz"]
    assert json.loads((hearts / "dataset.json").read_text(encoding="utf-8")) == {
        "channel_names": {"0": "cineMRI"},
        "labels": {"background": 0, "RV": 1, "MYO": 2, "LV": 3},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }


def test_nnunet_reads_the_hearts_and_accepts_them(hearts):
    image, label = hearts / "imagesTr/vendor_a_001_0000.nii.gz", hearts / "labelsTr/vendor_a_001.nii.gz"
    assert check_cases([str(image)], str(label), 1, SimpleITKIO)
    assert verify_labels(str(label), SimpleITKIO, [0, 1, 2, 3])
    voxels, properties = SimpleITKIO().read_images([str(image)])
    assert voxels.shape[1:] == read(image).transpose(2, 1, 0).shape  # nnU-Net: (channel, z, y, x)
    assert 8 <= properties["spacing"][0] <= 10 and 1.4 <= properties["spacing"][1] <= 1.8


def test_a_case_does_not_depend_on_how_many_cases_there_are(tmp_path, hearts):
    alone = write_cardiac_dataset(tmp_path, training_cases=1, test_cases=0)
    name = "imagesTr/vendor_a_000_0000.nii.gz"
    np.testing.assert_array_equal(read(alone / name), read(hearts / name))


def test_another_seed_writes_other_hearts(tmp_path, hearts):
    other = write_cardiac_dataset(tmp_path, training_cases=1, test_cases=0, seed=1)
    name = "labelsTr/vendor_a_000.nii.gz"
    a, b = read(other / name), read(hearts / name)
    assert a.shape != b.shape or (a != b).any()


def test_dataset_number_and_name_make_the_folder_name(tmp_path):
    folder = write_cardiac_dataset(tmp_path, dataset_id=7, name="Small", training_cases=1, test_cases=0)
    assert folder == tmp_path / "Dataset007_Small"


def test_an_ignored_stroke_hides_labels_and_changes_nothing_else():
    plain, painted = tumour_case(3), tumour_case(3, ignore=True)
    np.testing.assert_array_equal(plain.image, painted.image)
    ignored = painted.labels == 3
    np.testing.assert_array_equal(plain.labels[~ignored], painted.labels[~ignored])
    assert 0 < ignored.mean() < 0.2
    assert set(np.unique(painted.labels)) == {0, 1, 2, 3}


@pytest.mark.parametrize("seed", range(4))
def test_the_core_lies_inside_the_tumour(seed):
    image, labels, spacing_mm = tumour_case(seed)
    assert image.shape == (2, *labels.shape)
    assert all(32 <= n <= 40 for n in labels.shape)
    assert all(0.9 <= s <= 1.3 for s in spacing_mm)
    assert (labels[binary_dilation(labels == 2)] > 0).all()


@pytest.fixture(scope="module")
def tumours(tmp_path_factory):
    return write_regions_dataset(tmp_path_factory.mktemp("raw"), training_cases=2, test_cases=1)


def test_regions_dataset_declares_nested_regions_and_the_highest_label_as_ignore(tumours):
    content = json.loads((tumours / "dataset.json").read_text(encoding="utf-8"))
    assert content["labels"] == {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    assert content["channel_names"] == {"0": "T2", "1": "T1c"}
    labels = LabelManager(content["labels"], content["regions_class_order"])
    assert labels.has_regions and labels.has_ignore_label
    assert labels.foreground_regions == [(1, 2), (2,)]


def test_only_training_labels_of_the_regions_dataset_are_partly_ignored(tumours):
    assert names(tumours / "imagesTs") == ["tumour_002_0000.nii.gz", "tumour_002_0001.nii.gz"]
    for path in (tumours / "labelsTr").iterdir():
        assert set(np.unique(read(path))) == {0, 1, 2, 3}
    for path in (tumours / "labelsTs").iterdir():
        assert set(np.unique(read(path))) == {0, 1, 2}


def test_nnunet_reads_both_channels_of_the_tumours(tumours):
    channels = [str(tumours / f"imagesTr/tumour_000_{channel:04d}.nii.gz") for channel in range(2)]
    label = str(tumours / "labelsTr/tumour_000.nii.gz")
    assert check_cases(channels, label, 2, SimpleITKIO)
    assert verify_labels(label, SimpleITKIO, [0, 1, 2, 3])


def test_affines_are_oblique_off_the_origin_and_differ_between_cases(tumours):
    files = sorted((tumours / "labelsTr").iterdir())
    affines = [nibabel.load(path).affine for path in files]
    for path, affine in zip(files, affines, strict=True):
        header = nibabel.load(path).header
        np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-4)
        cosines = affine[:3, :3] / np.array(header.get_zooms())
        np.testing.assert_allclose(cosines.T @ cosines, np.eye(3), atol=1e-5)  # a rotation, no shear
        assert (np.abs(cosines) > 0.05).sum() > 3  # an unrotated one has 3 entries that are not zero
        assert np.abs(affine[:3, 3]).min() > 1
    assert not np.allclose(*affines)


def test_tumours_on_a_common_grid_differ_in_all_but_shape_and_spacing():
    first, second = (tumour_case(seed, common_grid=True) for seed in range(2))
    assert first.labels.shape == second.labels.shape == (36, 36, 36)
    assert first.spacing_mm == second.spacing_mm == (1.1, 1.1, 1.1)
    assert (first.labels != second.labels).any()


def test_plain_labels_without_regions_or_ignore(tmp_path):
    folder = write_regions_dataset(tmp_path, training_cases=1, test_cases=0, regions=False, ignore=False)
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert content["labels"] == {"background": 0, "edge": 1, "core": 2}
    assert "regions_class_order" not in content
    assert set(np.unique(read(folder / "labelsTr/tumour_000.nii.gz"))) == {0, 1, 2}
