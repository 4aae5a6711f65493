"""Writes phantoms as datasets in nnU-Net's raw format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from nnunet_ext.files.atomic import write_json
from nnunet_ext.phantom.cardiac import CARDIAC_LABELS, VendorName, cardiac_case
from nnunet_ext.phantom.case import Field, PhantomCase
from nnunet_ext.phantom.tumour import tumour_case

FILE_ENDING = ".nii.gz"


def write_cardiac_dataset(
    raw_folder: str | os.PathLike[str],
    *,
    dataset_id: int = 990,
    name: str = "PhantomHeart",
    training_cases: int = 20,
    test_cases: int = 4,
    seed: int = 0,
) -> Path:
    """Writes `DatasetXXX_NAME` with imagesTr, labelsTr, imagesTs, labelsTs and dataset.json.

    Args:
        raw_folder: nnU-Net's raw folder (`nnUNet_raw`); created if missing.
        dataset_id: number of the dataset, 1 to 999.
        name: the dataset's name after the number.
        training_cases: number of training cases, all of vendor a.
        test_cases: number of test cases per vendor; the names give the vendor, for example `vendor_b_003`.
        seed: a case depends only on the seed and its own number, not on how many cases there are.

    Returns:
        The dataset's folder.
    """
    folder = Path(raw_folder) / f"Dataset{dataset_id:03d}_{name}"
    split: dict[str, list[tuple[VendorName, int]]] = {
        "Tr": [("a", number) for number in range(training_cases)],
        # Test cases continue the numbers of the training cases, so that no case is in both.
        "Ts": [(vendor, training_cases + number) for vendor in ("a", "b") for number in range(test_cases)],
    }
    for part, cases in split.items():
        for vendor, number in cases:
            case = cardiac_case(_case_seed(seed, number), vendor)
            _write_case(folder, part, f"vendor_{vendor}_{number:03d}", case, _oblique_affine(case.spacing_mm, number))
    _write_dataset_json(folder, {"0": "cineMRI"}, CARDIAC_LABELS, training_cases)
    return folder


def write_regions_dataset(
    raw_folder: str | os.PathLike[str],
    *,
    dataset_id: int = 991,
    name: str = "PhantomTumour",
    training_cases: int = 5,
    test_cases: int = 2,
    seed: int = 0,
    regions: bool = True,
    ignore: bool = True,
    common_grid: bool = False,
) -> Path:
    """Writes a two-channel 3D dataset with nested regions, an ignore label and oblique affines.

    Args:
        raw_folder: nnU-Net's raw folder (`nnUNet_raw`); created if missing.
        dataset_id: number of the dataset, 1 to 999.
        name: the dataset's name after the number.
        training_cases: number of cases in imagesTr and labelsTr.
        test_cases: number of cases in imagesTs and labelsTs; their labels have no ignored voxels.
        seed: a case depends only on the seed and its own number, not on how many cases there are.
        regions: whether to declare the regions whole = {1, 2} and core = {2} instead of the labels edge = 1 and
            core = 2.
        ignore: whether to declare the ignore label 3 and paint it over part of the training labels.
        common_grid: whether all cases have the same shape and spacing, as images registered to an atlas.

    Returns:
        The dataset's folder.
    """
    folder = Path(raw_folder) / f"Dataset{dataset_id:03d}_{name}"
    for number in range(training_cases + test_cases):
        part = "Tr" if number < training_cases else "Ts"
        case = tumour_case(_case_seed(seed, number), ignore=ignore and part == "Tr", common_grid=common_grid)
        _write_case(folder, part, f"tumour_{number:03d}", case, _oblique_affine(case.spacing_mm, number))
    labels: dict[str, Any] = {"background": 0}
    labels |= {"whole": [1, 2], "core": [2]} if regions else {"edge": 1, "core": 2}
    if ignore:
        labels["ignore"] = 3
    extra = {"regions_class_order": [1, 2]} if regions else {}
    _write_dataset_json(folder, {"0": "T2", "1": "T1c"}, labels, training_cases, **extra)
    return folder


def _case_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _oblique_affine(spacing_mm: tuple[float, float, float], number: int) -> Field:
    """The affine from voxels (x, y, z) to world, rotated about two axes and shifted, differently for each case."""
    about_z, about_x = np.deg2rad(20.0 + 7.0 * (number % 5)), np.deg2rad(-15.0 + 5.0 * (number % 4))
    turn_z = np.array([[np.cos(about_z), -np.sin(about_z), 0], [np.sin(about_z), np.cos(about_z), 0], [0, 0, 1.0]])
    turn_x = np.array([[1.0, 0, 0], [0, np.cos(about_x), -np.sin(about_x)], [0, np.sin(about_x), np.cos(about_x)]])
    affine = np.eye(4)
    affine[:3, :3] = turn_x @ turn_z @ np.diag(spacing_mm[::-1])
    affine[:3, 3] = (-60.0 + number, 45.5, -12.25)
    return affine


def _write_case(folder: Path, part: str, case_name: str, case: PhantomCase, affine: Field) -> None:
    channels = case.image if case.image.ndim == 4 else case.image[None]
    for index, channel in enumerate(channels):
        _write_nifti(channel, affine, folder / f"images{part}" / f"{case_name}_{index:04d}{FILE_ENDING}")
    _write_nifti(case.labels, affine, folder / f"labels{part}" / f"{case_name}{FILE_ENDING}")


def _write_nifti(array: npt.NDArray[Any], affine: Field, path: Path) -> None:
    """Writes a (z, y, x) array as NIfTI, which stores (x, y, z)."""
    nifti = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)
    # Both forms are set, so that all readers get the same geometry.
    nifti.set_qform(affine, code=1)
    nifti.set_sform(affine, code=1)
    nifti.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nifti, path)


def _write_dataset_json(
    folder: Path, channels: dict[str, str], labels: dict[str, Any], training_cases: int, **extra: Any
) -> None:
    content = {
        "channel_names": channels,
        "labels": labels,
        "numTraining": training_cases,
        "file_ending": FILE_ENDING,
        **extra,
    }
    write_json(content, folder / "dataset.json")
