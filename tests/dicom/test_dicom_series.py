"""A DICOM series becomes the volume that it shows, whatever its axes and the order of its files; else it is refused.

Expected voxels come from the positions in the headers alone: each pixel holds a number that says where it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantoms import AXIAL, ORIGIN_MM, PLANES, SHAPE, SPACING_MM, edit, value_at, write_series
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_ext.input_checks.dicom_series import series_image, series_slices
from nnunet_ext.input_checks.findings import UnreadableFile

COS, SIN = np.cos(0.3), np.sin(0.3)
OBLIQUE = ((COS, SIN, 0.0), (-SIN * COS, COS * COS, SIN))


def read(folder: Path) -> sitk.Image:
    return series_image(series_slices(folder))


def values_by_position(image: sitk.Image) -> np.ndarray:
    """(z, y, x): what `value_at` says for the positions that the image gives its voxels."""
    indices = np.indices(image.GetSize()).reshape(3, -1).T  # (voxels, 3), x first
    scaled = indices * np.array(image.GetSpacing())
    positions = np.array(image.GetOrigin()) + scaled @ np.reshape(image.GetDirection(), (3, 3)).T
    return value_at(positions).reshape(image.GetSize()).transpose(2, 1, 0)


# ---- orientation --------------------------------------------------------------------------------------------------


def test_there_are_24_planes():
    assert len(PLANES) == 24


@pytest.mark.parametrize("reverse", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("axes", PLANES, ids=lambda axes: "".join(str(axis.astype(int)) for axis in axes))
def test_every_voxel_is_where_its_slice_says(axes: Any, reverse: bool, tmp_path: Path) -> None:
    write_series(tmp_path, axes=axes, reverse=reverse)
    image = read(tmp_path)
    assert image.GetSize() == SHAPE[::-1]
    assert np.allclose(image.GetSpacing(), SPACING_MM[::-1])
    assert np.array_equal(sitk.GetArrayFromImage(image), values_by_position(image))


@pytest.mark.parametrize("axes", [AXIAL, OBLIQUE, *PLANES[:8]])
def test_slices_from_the_far_end_are_the_same_volume(axes: Any, tmp_path: Path) -> None:
    # from the last slice down to the first, each with its own position: the same series, acquired the other way round
    step = np.cross(*np.array(axes)) * SPACING_MM[0]
    write_series(tmp_path / "up", axes=axes)
    write_series(tmp_path / "down", axes=axes, step=-step)
    up, down = read(tmp_path / "up"), read(tmp_path / "down")
    assert up.GetDirection() == down.GetDirection()
    assert np.allclose(down.GetOrigin(), ORIGIN_MM - 3 * step)
    assert np.allclose(up.GetOrigin(), ORIGIN_MM)


@pytest.mark.parametrize("axes", [AXIAL, OBLIQUE, *PLANES])
def test_the_volume_is_that_of_simpleitk_and_of_nifti(axes: Any, tmp_path: Path) -> None:
    write_series(tmp_path / "series", axes=axes, reverse=True)
    image = read(tmp_path / "series")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "series")))
    by_itk = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(by_itk))
    for one, other in (
        (image.GetOrigin(), by_itk.GetOrigin()),
        (image.GetSpacing(), by_itk.GetSpacing()),
        (image.GetDirection(), by_itk.GetDirection()),
    ):
        assert np.allclose(one, other, atol=1e-6)
    sitk.WriteImage(image, str(tmp_path / "a_0000.nii.gz"))
    voxels, properties = SimpleITKIO().read_images([str(tmp_path / "a_0000.nii.gz")])
    assert np.array_equal(voxels[0], sitk.GetArrayFromImage(by_itk))
    assert np.allclose(properties["spacing"], SPACING_MM)


def test_slices_with_a_slope_of_their_own_keep_their_numbers(tmp_path: Path) -> None:
    # as in PET; SimpleITK's reader of series rounds all to the integers of the first slice
    files = write_series(tmp_path)
    edit(files[2], RescaleSlope=0.5, RescaleIntercept=-512)
    values = sitk.GetArrayFromImage(read(tmp_path))
    expected = values_by_position(read(tmp_path)).astype(np.float32)
    expected[2] /= 2  # (pixel - 1024) / 2
    assert values.dtype == np.float32
    assert np.array_equal(values, expected)


def test_other_files_in_the_folder_are_left_out(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    (tmp_path / "DICOMDIR").write_bytes(files[0].read_bytes())
    (tmp_path / "readme.txt").write_text("from the archive")
    (tmp_path / "._IM0000").write_bytes(b"side file")
    assert read(tmp_path).GetSize() == SHAPE[::-1]


# ---- what is refused ----------------------------------------------------------------------------------------------


def refusal(folder: Path) -> UnreadableFile:
    with pytest.raises(UnreadableFile) as error:
        read(folder)
    return error.value


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path: Path) -> None:
    files = write_series(tmp_path, slices=8)
    files[4].unlink()
    assert refusal(tmp_path).found == "6 mm between IM0003 and IM0005, where others are 3 mm apart"


def test_unequal_distances_are_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    edit(files[3], ImagePositionPatient=(ORIGIN_MM + np.array([0, 0, 9.5])).tolist())
    assert "3.5 mm between" in refusal(tmp_path).found


def test_a_tilted_gantry_is_refused_with_its_angle(tmp_path: Path) -> None:
    angle = np.radians(20)
    write_series(tmp_path, step=(0, 3 * np.sin(angle), 3 * np.cos(angle)))
    assert "tilted by 20 degrees" in refusal(tmp_path).found


def test_two_series_in_a_folder_are_named(tmp_path: Path) -> None:
    files = write_series(tmp_path, SeriesDescription="T1")
    for path in files[2:]:
        edit(path, SeriesInstanceUID="1.2.3.9", SeriesDescription="T2")
    found = refusal(tmp_path).found
    assert "2 DICOM series" in found and "T1 (2 files)" in found and "T2 (2 files)" in found


def test_two_time_points_are_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    for path in files:
        (tmp_path / f"again_{path.name}").write_bytes(path.read_bytes())
    assert "two slices at one position" in refusal(tmp_path).found


def test_colour_is_refused(tmp_path: Path) -> None:
    _, rows, columns = SHAPE
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "BitsAllocated": 8}
    eight_bits = {"BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "PixelData": bytes(3 * rows * columns)}
    write_series(tmp_path, **colour, **eight_bits)
    assert "3 numbers per pixel" in refusal(tmp_path).found


def test_multi_frame_objects_are_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path, slices=1)
    edit(files[0], NumberOfFrames=2, PixelData=bytes(2 * 2 * SHAPE[1] * SHAPE[2]))
    assert "2 frames" in refusal(tmp_path).found


def test_slices_on_different_grids_are_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    edit(files[1], PixelSpacing=[2.5, 1.0])
    assert "IM0001" in refusal(tmp_path).found


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_slice_without_its_place_is_refused(tag: str, tmp_path: Path) -> None:
    files = write_series(tmp_path)
    edit(files[1], **{tag: None})
    assert "IM0001 without a usable element" in refusal(tmp_path).found


def test_directions_that_are_no_directions_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, axes=((1, 0, 0), (0.5, 1, 0)), step=(0, 0, 3))
    assert "directions" in refusal(tmp_path).found


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    files[2].write_bytes(files[2].read_bytes()[:-10])
    assert "IM0002" in refusal(tmp_path).found


@pytest.mark.parametrize(("slices", "found"), [(0, "0 DICOM series"), (1, "a series of one slice")])
def test_too_few_slices_are_refused(slices: int, found: str, tmp_path: Path) -> None:
    write_series(tmp_path, slices=slices)
    assert found in refusal(tmp_path).found
