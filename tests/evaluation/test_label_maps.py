"""Pairs of label maps that may be compared, and every reason why others may not, with nnU-Net's own readers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_ext.evaluation.label_maps import LabelMapPair, NotComparableError, read_label_map, read_pair

SPACING_XYZ = (0.5, 1.5, 2.0)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
QUARTER_TURN = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
LABELS = (0, 1, 2)


def labels_zyx() -> np.ndarray:
    values = np.zeros((3, 4, 5), dtype=np.uint8)
    values[1, 1:3, 1:4] = 1
    values[2, 3, 4] = 2
    return values


def write(
    path: Path,
    values: np.ndarray | None = None,
    *,
    spacing: Sequence[float] = SPACING_XYZ,
    origin: Sequence[float] = (-7.0, 3.5, 11.0),
    direction: Sequence[float] = IDENTITY,
) -> Path:
    """A label map as NIfTI; its header holds spacing, origin and direction, from which readers take an affine."""
    image = sitk.GetImageFromArray(labels_zyx() if values is None else values)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def pair_of(tmp_path: Path) -> Callable[..., LabelMapPair]:
    """Reads `truth.nii.gz` and `case.nii.gz`; labels 0 to 2, and no ignore label unless asked for."""

    def read(
        reader: BaseReaderWriter | None = None, *, labels: Sequence[int] = LABELS, ignore_label: int | None = None
    ) -> LabelMapPair:
        return read_pair(
            tmp_path / "truth.nii.gz", tmp_path / "case.nii.gz", reader or SimpleITKIO(), labels, ignore_label
        )

    return read


each_reader = pytest.mark.parametrize("reader", [SimpleITKIO(), NibabelIO()], ids=["SimpleITK", "nibabel"])


@each_reader
def test_a_pair_on_one_grid(reader, pair_of, tmp_path):
    """Both readers give z, y, x; the spacing goes along."""
    write(tmp_path / "truth.nii.gz")
    write(tmp_path / "case.nii.gz", np.zeros((3, 4, 5), np.uint8))
    pair = pair_of(reader)
    np.testing.assert_array_equal(pair.truth, labels_zyx())
    assert pair.prediction.shape == (3, 4, 5)
    assert not pair.prediction.any()
    assert np.issubdtype(pair.truth.dtype, np.integer)
    assert pair.spacing_mm == pytest.approx((2.0, 1.5, 0.5))


def test_a_2d_image_is_one_slice(tmp_path):
    """nnU-Net's reader of PNG files knows no spacing: 1 mm in the plane, and 999 between slices."""
    import skimage.io

    values = np.array([[0, 1], [2, 0], [1, 1]], dtype=np.uint8)
    for name in ("truth.png", "case.png"):
        skimage.io.imsave(tmp_path / name, values, check_contrast=False)
    pair = read_pair(tmp_path / "truth.png", tmp_path / "case.png", NaturalImage2DIO(), LABELS, None)
    np.testing.assert_array_equal(pair.truth, values[None])
    assert pair.spacing_mm == (999.0, 1.0, 1.0)


# --- files ---


@pytest.mark.parametrize("damaged", ["truth", "case"])
@each_reader
def test_a_file_that_cannot_be_read_is_named(reader, pair_of, tmp_path, damaged):
    write(tmp_path / "truth.nii.gz")
    write(tmp_path / "case.nii.gz")
    (tmp_path / f"{damaged}.nii.gz").write_bytes(b"no image")
    with pytest.raises(NotComparableError, match=rf"{damaged}\.nii\.gz cannot be read as a label map: "):
        pair_of(reader)


def test_a_file_of_several_channels_is_refused(tmp_path):
    values = np.zeros((5, 4, 3, 2), np.uint8)  # x, y, z, t
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "film.nii.gz")
    with pytest.raises(NotComparableError, match=r"one volume; .*film\.nii\.gz has 2"):
        read_label_map(tmp_path / "film.nii.gz", SimpleITKIO())


# --- grids ---


@each_reader
def test_another_shape(reader, pair_of, tmp_path):
    write(tmp_path / "truth.nii.gz")
    write(tmp_path / "case.nii.gz", np.zeros((3, 5, 4), np.uint8))
    with pytest.raises(NotComparableError, match=r"same shape; case\.nii\.gz has \(3, 5, 4\), its truth \(3, 4, 5\)"):
        pair_of(reader)


@pytest.mark.parametrize(
    ("reader", "changes", "what"),
    [
        (SimpleITKIO(), {"spacing": (0.5, 1.5, 2.5)}, "spacing"),
        (SimpleITKIO(), {"origin": (-7.0, 3.5, 12.0)}, "origin"),
        (SimpleITKIO(), {"direction": QUARTER_TURN}, "direction"),
        (NibabelIO(), {"spacing": (0.5, 1.5, 2.5)}, "spacing"),
        (NibabelIO(), {"origin": (-7.0, 3.5, 12.0)}, "affine"),
        (NibabelIO(), {"direction": QUARTER_TURN}, "affine"),
    ],
)
def test_another_place(reader, changes, what, pair_of, tmp_path):
    write(tmp_path / "truth.nii.gz")
    write(tmp_path / "case.nii.gz", **changes)
    with pytest.raises(
        NotComparableError, match=rf"same geometry; case\.nii\.gz has the {what} .* its truth .* Resample"
    ):
        pair_of(reader)


@each_reader
def test_rounded_headers_are_no_other_place(reader, pair_of, tmp_path):
    """A fifth of a thousandth of the smallest side of a voxel, 0.5 mm."""
    write(tmp_path / "truth.nii.gz")
    write(tmp_path / "case.nii.gz", origin=(-7.0001, 3.5, 11.0), spacing=(0.5, 1.500001, 2.0))
    assert pair_of(reader).truth.shape == (3, 4, 5)


# --- labels ---


def test_a_label_that_the_dataset_does_not_have(pair_of, tmp_path):
    values = labels_zyx()
    values[0, 0, :2] = 7, 4
    write(tmp_path / "truth.nii.gz")
    write(tmp_path / "case.nii.gz", values)
    with pytest.raises(NotComparableError, match=r"\[0, 1, 2\].*the prediction case\.nii\.gz also contains 4, 7"):
        pair_of()
    write(tmp_path / "case.nii.gz")
    write(tmp_path / "truth.nii.gz", values)
    with pytest.raises(NotComparableError, match=r"the truth .*truth\.nii\.gz also contains 4, 7"):
        pair_of()


def test_only_the_truth_may_hold_the_ignore_label(pair_of, tmp_path):
    values = labels_zyx()
    values[0, 0, 0] = 3
    write(tmp_path / "truth.nii.gz", values)
    write(tmp_path / "case.nii.gz")
    assert pair_of(ignore_label=3).truth[0, 0, 0] == 3
    write(tmp_path / "case.nii.gz", values)
    with pytest.raises(NotComparableError, match="also contains 3"):
        pair_of(ignore_label=3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_whole_numbers_are_labels_however_they_are_stored(dtype, tmp_path):
    path = write(tmp_path / "map.nii.gz", labels_zyx().astype(dtype))
    values, _ = read_label_map(path, SimpleITKIO())
    np.testing.assert_array_equal(values, labels_zyx())
    assert np.issubdtype(values.dtype, np.integer)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8])
@each_reader
def test_labels_that_scl_slope_rounds_are_the_labels(reader, dtype, tmp_path):
    """nibabel stores a float array as scaled integers if the header says so: 1 returns as 1.0000153, or as 0.9961."""
    image = nibabel.Nifti1Image(labels_zyx().transpose(2, 1, 0).astype(np.float64), np.eye(4))
    image.header.set_data_dtype(dtype)
    nibabel.save(image, tmp_path / "map.nii.gz")
    assert nibabel.load(tmp_path / "map.nii.gz").get_fdata().max() == pytest.approx(2, abs=1e-3)
    assert 1 not in nibabel.load(tmp_path / "map.nii.gz").get_fdata()
    np.testing.assert_array_equal(read_label_map(tmp_path / "map.nii.gz", reader)[0], labels_zyx())


def test_labels_that_a_slope_rounds_too_far_are_refused_with_the_reason(tmp_path):
    """100 in 255 steps: 1 is stored as 3 * 0.392 = 1.18."""
    image = nibabel.Nifti1Image(labels_zyx() + 98.0 * (labels_zyx() == 2), np.eye(4))
    image.header.set_data_dtype(np.uint8)
    nibabel.save(image, tmp_path / "map.nii.gz")
    with pytest.raises(NotComparableError, match="scl_slope in its header rounds the labels"):
        read_label_map(tmp_path / "map.nii.gz", SimpleITKIO())


@pytest.mark.parametrize("slices", [1, 3])
def test_layers_of_3d_slicer_are_called_layers_and_not_channels(slices, tmp_path):
    """Overlapping segments are saved as vectors, which SimpleITKIO takes for one more axis."""
    layer = sitk.GetImageFromArray(np.ones((slices, 4, 5), np.uint8))
    sitk.WriteImage(sitk.Compose(layer, layer), str(tmp_path / "a.seg.nrrd"))
    with pytest.raises(NotComparableError, match=r"one number for each voxel; .*a\.seg\.nrrd has 2: layers"):
        read_label_map(tmp_path / "a.seg.nrrd", SimpleITKIO())


def test_micrometres_that_the_reader_takes_for_millimetres_are_refused(tmp_path):
    image = nibabel.Nifti1Image(labels_zyx(), np.diag([10.0, 10, 50, 1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(NotComparableError, match=r"a\.nii: found micrometres in the header .* NibabelIO ignores"):
        read_label_map(tmp_path / "a.nii", NibabelIO())
    _, properties = read_label_map(tmp_path / "a.nii", SimpleITKIO())  # which converts them
    assert properties["spacing"] == pytest.approx([0.05, 0.01, 0.01])


# --- stacks of TIFF, whose spacing is in a file beside them ---


@pytest.mark.parametrize("known", [("truth",), ("case",), ("truth", "case")])
def test_the_spacing_that_one_file_knows_is_that_of_both(known, tmp_path):
    for name in ("truth", "case"):
        tifffile.imwrite(tmp_path / f"{name}.tif", labels_zyx())
    for name in known:
        (tmp_path / f"{name}.json").write_text(json.dumps({"spacing": [3.0, 0.5, 0.5]}))
    pair = read_pair(tmp_path / "truth.tif", tmp_path / "case.tif", Tiff3DIO(), LABELS, None)
    assert pair.spacing_mm == (3.0, 0.5, 0.5)


def test_two_known_spacings_must_agree(tmp_path):
    for name, spacing in (("truth", [3.0, 0.5, 0.5]), ("case", [3.0, 1.0, 1.0])):
        tifffile.imwrite(tmp_path / f"{name}.tif", labels_zyx())
        (tmp_path / f"{name}.json").write_text(json.dumps({"spacing": spacing}))
    with pytest.raises(NotComparableError, match="has the spacing"):
        read_pair(tmp_path / "truth.tif", tmp_path / "case.tif", Tiff3DIO(), LABELS, None)


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_other_numbers_are_none(value, tmp_path):
    values = labels_zyx().astype(np.float32)
    values[0, 0, 0] = value
    path = write(tmp_path / "map.nii.gz", values)
    with pytest.raises(
        NotComparableError, match=rf"whole numbers; .*map\.nii\.gz contains {value}\. Is it a probability"
    ):
        read_label_map(path, NibabelIO())  # SimpleITK takes a NaN in NIfTI files for 0


class Reader:
    """Reads what it was given, whatever the file."""

    def __init__(self, values: np.ndarray, spacing: Sequence[float]) -> None:
        self.values, self.spacing = values, spacing

    def read_seg(self, path: str) -> tuple[np.ndarray, dict[str, Any]]:
        return self.values[None], {"spacing": self.spacing}


def test_a_reader_that_knows_nothing_but_the_spacing_is_enough(tmp_path):
    pair = read_pair(tmp_path / "a", tmp_path / "b", Reader(labels_zyx(), (3.0, 1.0, 1.0)), LABELS, None)
    assert pair.spacing_mm == (3.0, 1.0, 1.0)
