"""Scans of a folder, their geometry, and the filters."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunet_ext.options.pretraining import FixedPlans, PretrainOptions, ScanFilter
from nnunet_ext.prediction_folder.cases import Case
from nnunet_ext.unlabelled.scans import (
    Dropped,
    Geometry,
    common_ending,
    filtered,
    find_scans,
    geometry_of,
    masks_of,
    mismatched,
)


def write(path: Path, shape=(10, 20, 30), spacing_mm=(1.0, 2.0, 3.0)) -> Path:
    voxels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([*spacing_mm, 1])), path)
    return path


def test_scans_are_numbered_channels_or_single_files(tmp_path):
    for name in (
        "b_0000.nii.gz",
        "b_0001.nii.gz",
        "a.nii.gz",
        ".partial-c.nii.gz",
        "._a.nii.gz",
        "notes.txt",
        "d.mha",
    ):
        (tmp_path / name).touch()
    assert common_ending(tmp_path) == ".nii.gz"
    scans = find_scans(tmp_path, ".nii.gz")
    assert [(scan.name, [file.name for file in scan.files]) for scan in scans] == [
        ("a", ["a.nii.gz"]),
        ("b", ["b_0000.nii.gz", "b_0001.nii.gz"]),
    ]


def test_a_folder_without_scans_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        common_ending(tmp_path / "no")
    with pytest.raises(FileNotFoundError, match="holds none"):
        common_ending(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no \.mha file"):
        find_scans(tmp_path, ".mha")


def test_the_geometry_is_that_of_the_header(tmp_path):
    write(tmp_path / "a.nii.gz")
    [scan] = find_scans(tmp_path, ".nii.gz")
    geometry = geometry_of(scan)
    assert geometry == Geometry((10, 20, 30), (1, 2, 3))
    assert geometry.field_of_view_mm == (10, 40, 90)


def test_a_header_that_cannot_be_read_is_a_reason(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"nothing")
    [scan] = find_scans(tmp_path, ".nii.gz")
    found = geometry_of(scan)
    assert isinstance(found, Dropped)
    assert found.kind == "damaged"


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        (ScanFilter(), None),
        (ScanFilter(min_fov_mm=10), None),
        (ScanFilter(min_fov_mm=10.5), "field of view"),
        (ScanFilter(max_spacing_mm=3), None),
        (ScanFilter(max_spacing_mm=2.9), "spacing"),
        (ScanFilter(min_file_kb=1000), "file size"),
        (ScanFilter(max_file_mb=0.001), "file size"),
    ],
)
def test_a_filter_looks_at_the_worst_axis(tmp_path, limits, kind):
    write(tmp_path / "a.nii.gz")
    [scan] = find_scans(tmp_path, ".nii.gz")
    found = filtered(scan, geometry_of(scan), limits)
    assert (found.kind if found else None) == kind


def test_a_mask_belongs_to_the_scan_of_its_name_and_has_its_size_and_spacing(tmp_path):
    scan = geometry_of(Case("a", (write(tmp_path / "a.nii.gz"),)))
    masks = tmp_path / "masks"
    masks.mkdir()
    with pytest.raises(FileNotFoundError, match=r"such as a\.nii\.gz"):
        masks_of(find_scans(tmp_path, ".nii.gz"), masks, ".nii.gz")
    write(masks / "a.nii.gz")
    write(masks / "other.nii.gz")
    found = masks_of([Case("a", ()), Case("b", ())], masks, ".nii.gz")
    assert found == {"a": masks / "a.nii.gz"}
    assert mismatched(found["a"], scan) is None
    assert mismatched(write(masks / "short.nii.gz", shape=(10, 20, 29)), scan).kind == "mask"
    assert mismatched(write(masks / "fine.nii.gz", spacing_mm=(1.0, 2.0, 1.5)), scan).kind == "mask"


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="min_fov_mm must be above 0; found -1"):
        ScanFilter(min_fov_mm=-1)
    with pytest.raises(ValueError, match="multiple of 32"):
        FixedPlans(patch_size=100)
    with pytest.raises(ValueError, match="3d_fullres only; found 2d"):
        PretrainOptions(Path("scans"), "900", configuration="2d")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        PretrainOptions(Path("scans"), "900", batch_size=0)
