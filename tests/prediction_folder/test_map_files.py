"""Maps lie where nnU-Net's own segmentations lie, voxel for voxel, whatever the file format."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_ext.prediction_folder.map_files import MAP_TYPES, MAP_WRITERS, map_file_ending, write_map

SHAPE_ZYX = (4, 5, 6)
SPACING_XYZ = (0.7, 1.3, 3.1)
ORIGIN_XYZ = (-21.5, 14.25, 130.0)


def _rotation(axis: str, degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    in_plane = np.array([[cos, -sin], [sin, cos]])
    rotation = np.eye(3)
    rotated = {"x": [1, 2], "y": [0, 2], "z": [0, 1]}[axis]
    rotation[np.ix_(rotated, rotated)] = in_plane
    return rotation


# Oblique, and with permuted and flipped axes: columns are the directions of the x, y and z index in patient space.
OBLIQUE_DIRECTION = _rotation("z", 12) @ _rotation("x", 7)
PERMUTED_DIRECTION = OBLIQUE_DIRECTION @ np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], dtype=float)


def _simpleitk_image_file(path: Path, direction: np.ndarray) -> Path:
    image = sitk.GetImageFromArray(np.random.default_rng(0).random(SHAPE_ZYX, dtype=np.float32))
    image.SetSpacing(SPACING_XYZ)
    image.SetOrigin(ORIGIN_XYZ)
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


def _simpleitk_2d_image_file(path: Path) -> Path:
    image = sitk.GetImageFromArray(np.random.default_rng(0).random(SHAPE_ZYX[1:], dtype=np.float32))
    image.SetSpacing(SPACING_XYZ[:2])
    image.SetOrigin(ORIGIN_XYZ[:2])
    image.SetDirection(_rotation("z", 12)[:2, :2].ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


def _nibabel_image_file(path: Path, direction: np.ndarray) -> Path:
    affine = np.eye(4)
    affine[:3, :3] = direction @ np.diag(SPACING_XYZ)
    affine[:3, 3] = ORIGIN_XYZ
    voxels = np.random.default_rng(0).random(SHAPE_ZYX[::-1], dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def _written_pair(
    reader_writer: BaseReaderWriter, image: Path, file_ending: str
) -> tuple[Path, Path, np.ndarray, np.ndarray, dict[str, Any]]:
    """Writes a label map and a float map for an image; returns their paths, both arrays and the properties."""
    voxels, properties = reader_writer.read_images((str(image),))
    shape = voxels.shape[1:]  # (z, y, x), of the reoriented image where the reader reorients
    labels = np.random.default_rng(1).integers(0, 5, shape).astype(np.uint8)
    values = np.random.default_rng(2).random(shape)
    folder = image.parent
    for name in ("labels", "labels_as_map", "values"):
        (folder / name).mkdir()
    labels_file = folder / "labels" / f"case{file_ending}"
    map_ending = map_file_ending(file_ending, reader_writer)
    reader_writer.write_seg(labels, str(labels_file), properties)
    write_map(labels.astype(float), folder / "labels_as_map" / f"case{map_ending}", properties, reader_writer)
    values_file = folder / "values" / f"case{map_ending}"
    write_map(values, values_file, properties, reader_writer)
    return labels_file, values_file, labels, values, properties


def _assert_same_simpleitk_image(first: Path, second: Path) -> None:
    a, b = sitk.ReadImage(str(first)), sitk.ReadImage(str(second))
    assert a.GetSize() == b.GetSize()
    assert a.GetSpacing() == b.GetSpacing()
    assert a.GetOrigin() == b.GetOrigin()
    assert a.GetDirection() == b.GetDirection()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(a), sitk.GetArrayFromImage(b))


SIMPLEITK_CASES = [
    pytest.param(SimpleITKIO(), OBLIQUE_DIRECTION, ending, id=f"SimpleITKIO{ending}")
    for ending in SimpleITKIO.supported_file_endings
] + [
    pytest.param(SimpleITKIOWithReorient(), PERMUTED_DIRECTION, ending, id=f"SimpleITKIOWithReorient{ending}")
    for ending in (".nii.gz", ".mha")
]


@pytest.mark.parametrize(("reader_writer", "direction", "ending"), SIMPLEITK_CASES)
def test_simpleitk_map_has_the_geometry_and_the_values(
    tmp_path: Path, reader_writer: BaseReaderWriter, direction: np.ndarray, ending: str
) -> None:
    image = _simpleitk_image_file(tmp_path / f"case_0000{ending}", direction)
    labels_file, values_file, _, values, properties = _written_pair(reader_writer, image, ending)

    _assert_same_simpleitk_image(labels_file, tmp_path / "labels_as_map" / f"case{ending}")
    written, original = sitk.ReadImage(str(values_file)), sitk.ReadImage(str(image))
    assert written.GetPixelID() == sitk.sitkFloat32
    assert written.GetSize() == original.GetSize()
    np.testing.assert_allclose(written.GetSpacing(), original.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(written.GetOrigin(), original.GetOrigin(), rtol=1e-6)
    np.testing.assert_allclose(written.GetDirection(), original.GetDirection(), atol=1e-6)
    # Read as nnU-Net reads the image, the map is back on the axes on which it was computed.
    read_back, read_properties = reader_writer.read_seg(str(values_file))
    np.testing.assert_array_equal(read_back[0], values.astype(np.float32))
    np.testing.assert_allclose(read_properties["spacing"], properties["spacing"], rtol=1e-6)


AMBIGUOUS_DIRECTIONS = {
    "45 degrees": _rotation("z", 45),
    "45 degrees, a little less": _rotation("z", 45 - 1e-4),
    "45 degrees, a little more": _rotation("z", 45 + 1e-4),
    "45 degrees about two axes": _rotation("x", 45) @ _rotation("z", 45),
    "no axis closer than another": np.array([[1, 1, 1], [1, -1, 1], [1, 0, -2]]) / np.sqrt([3, 2, 6]),
    "135 degrees, mirrored": _rotation("y", 135) @ np.diag([1.0, 1, -1]),
}


@pytest.mark.parametrize("direction", AMBIGUOUS_DIRECTIONS.values(), ids=AMBIGUOUS_DIRECTIONS.keys())
@pytest.mark.parametrize("reader", [NibabelIO, NibabelIOWithReorient, SimpleITKIO, SimpleITKIOWithReorient])
def test_map_and_segmentation_lie_on_one_grid_where_the_orientation_is_ambiguous(
    reader: type[BaseReaderWriter], direction: np.ndarray, tmp_path: Path
) -> None:
    """Which axis is "to the right" is then decided by rounding, and must be decided once."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction * SPACING_XYZ, ORIGIN_XYZ
    voxels = np.arange(120, dtype=np.float32).reshape(SHAPE_ZYX[::-1])
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "a_0000.nii.gz")
    read, properties = reader().read_images([str(tmp_path / "a_0000.nii.gz")])
    reader().write_seg(read[0].astype(np.uint8), str(tmp_path / "a.nii.gz"), properties)
    write_map(read[0], tmp_path / "map.nii.gz", properties, reader())
    segmentation, written = nibabel.load(tmp_path / "a.nii.gz"), nibabel.load(tmp_path / "map.nii.gz")
    np.testing.assert_allclose(written.affine, segmentation.affine, atol=1e-5)
    np.testing.assert_array_equal(written.get_fdata(), segmentation.get_fdata())


def test_the_reoriented_example_is_not_stored_in_ras(tmp_path: Path) -> None:
    """Otherwise the reorienting writers would have nothing to undo above."""
    image = sitk.ReadImage(str(_simpleitk_image_file(tmp_path / "case_0000.mha", PERMUTED_DIRECTION)))
    name = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    # x index runs along +y (posterior), y index along -z (inferior), z index along -x (right)
    assert name == "PIR"


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_simpleitk_2d_image_gets_a_2d_map(tmp_path: Path, ending: str) -> None:
    image = _simpleitk_2d_image_file(tmp_path / f"case_0000{ending}")
    labels_file, values_file, _, values, _ = _written_pair(SimpleITKIO(), image, ending)

    _assert_same_simpleitk_image(labels_file, tmp_path / "labels_as_map" / f"case{ending}")
    written = sitk.ReadImage(str(values_file))
    assert written.GetDimension() == 2
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), values[0].astype(np.float32))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("reader_writer", "direction"),
    [
        pytest.param(NibabelIO(), OBLIQUE_DIRECTION, id="NibabelIO"),
        pytest.param(NibabelIOWithReorient(), PERMUTED_DIRECTION, id="NibabelIOWithReorient"),
    ],
)
def test_nibabel_map_has_the_affine_and_the_values(
    tmp_path: Path, reader_writer: BaseReaderWriter, direction: np.ndarray, ending: str
) -> None:
    image = _nibabel_image_file(tmp_path / f"case_0000{ending}", direction)
    labels_file, values_file, _, values, properties = _written_pair(reader_writer, image, ending)

    labels_image = nibabel.load(labels_file)
    labels_as_map = nibabel.load(tmp_path / "labels_as_map" / f"case{ending}")
    np.testing.assert_array_equal(labels_as_map.get_fdata(), labels_image.get_fdata())
    for code in ("sform_code", "qform_code", "xyzt_units"):
        assert labels_as_map.header[code] == labels_image.header[code]
    for map_file in (tmp_path / "labels_as_map" / f"case{ending}", values_file):
        np.testing.assert_array_equal(nibabel.load(map_file).affine, labels_image.affine)
    written, original = nibabel.load(values_file), nibabel.load(image)
    assert written.get_data_dtype() == np.float32
    assert written.shape == original.shape
    np.testing.assert_allclose(written.affine, original.affine, atol=1e-4)
    read_back, read_properties = reader_writer.read_seg(str(values_file))
    np.testing.assert_array_equal(read_back[0], values.astype(np.float32))
    np.testing.assert_allclose(read_properties["spacing"], properties["spacing"], rtol=1e-6)


@pytest.mark.parametrize("ending", [".tif", ".tiff"])
def test_tiff_3d_map_has_the_spacing_file_and_the_values(tmp_path: Path, ending: str) -> None:
    image = tmp_path / f"case_0000{ending}"
    tifffile.imwrite(image, np.zeros(SHAPE_ZYX, np.float32), photometric="minisblack")
    (tmp_path / "case.json").write_text(json.dumps({"spacing": [3.1, 1.3, 0.7]}))
    labels_file, values_file, labels, values, _ = _written_pair(Tiff3DIO(), image, ending)

    labels_as_map = tifffile.imread(tmp_path / "labels_as_map" / f"case{ending}")
    np.testing.assert_array_equal(labels_as_map, labels)
    np.testing.assert_array_equal(labels_as_map, tifffile.imread(labels_file))
    assert tifffile.imread(values_file).dtype == np.float32
    read_back, read_properties = Tiff3DIO().read_seg(str(values_file))
    np.testing.assert_array_equal(read_back[0], values.astype(np.float32))
    assert read_properties["spacing"] == [3.1, 1.3, 0.7]
    assert (values_file.parent / "case.json").read_bytes() == (labels_file.parent / "case.json").read_bytes()


@pytest.mark.parametrize("shape_zyx", [(1, 5, 6), (5, 6, 3), (5, 6, 4), (3, 5, 6)])
def test_tiff_3d_map_with_three_or_four_columns_is_no_colour_image(
    tmp_path: Path, shape_zyx: tuple[int, int, int]
) -> None:
    values = np.random.default_rng(0).random(shape_zyx, dtype=np.float32)
    write_map(values, tmp_path / "case.tif", {"spacing": (1, 1, 1)}, Tiff3DIO())
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "case.tif"), values)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_natural_image_map_is_a_2d_float_tiff(tmp_path: Path, ending: str) -> None:
    image = tmp_path / f"case_0000{ending}"
    NaturalImage2DIO().write_seg(np.zeros((1, 5, 6), np.uint8), str(image), {})
    labels_file, values_file, _, values, _ = _written_pair(NaturalImage2DIO(), image, ending)

    assert values_file.name == "case.tif"
    written = tifffile.imread(values_file)
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, values[0].astype(np.float32))
    labels, labels_properties = NaturalImage2DIO().read_seg(str(labels_file))
    as_map, map_properties = NaturalImage2DIO().read_seg(str(tmp_path / "labels_as_map" / "case.tif"))
    np.testing.assert_array_equal(as_map, labels)
    assert map_properties == labels_properties


@pytest.mark.parametrize(
    ("file_ending", "reader_writer", "expected"),
    [
        (".nii.gz", SimpleITKIO(), ".nii.gz"),
        (".mha", SimpleITKIOWithReorient(), ".mha"),
        (".nii", NibabelIO(), ".nii"),
        (".tiff", Tiff3DIO(), ".tiff"),
        (".png", NaturalImage2DIO(), ".tif"),
        (".BMP", NaturalImage2DIO(), ".tif"),
        (".TIF", NaturalImage2DIO(), ".TIF"),
    ],
)
def test_map_file_ending(file_ending: str, reader_writer: BaseReaderWriter, expected: str) -> None:
    assert map_file_ending(file_ending, reader_writer) == expected


def test_every_reader_writer_that_nnunet_chooses_from_has_an_entry() -> None:
    assert set(LIST_OF_IO_CLASSES) <= set(MAP_WRITERS)


def test_a_subclass_uses_the_entry_of_its_nearest_base_class(tmp_path: Path) -> None:
    class ScannerIO(NibabelIOWithReorient):
        pass

    class ReorientedScannerIO(SimpleITKIOWithReorient):
        pass

    image = _simpleitk_image_file(tmp_path / "case_0000.nii.gz", PERMUTED_DIRECTION)
    for subclass, base in ((ScannerIO, NibabelIOWithReorient), (ReorientedScannerIO, SimpleITKIOWithReorient)):
        voxels, properties = base().read_images((str(image),))
        write_map(voxels[0], tmp_path / "map.nii.gz", properties, subclass())
        # The image itself as a map of its reoriented voxels: only the reorienting writer puts them back in place.
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "map.nii.gz"))),
            sitk.GetArrayFromImage(sitk.ReadImage(str(image))),
        )


class OtherIO(BaseReaderWriter):
    def read_images(self, image_fnames: Any) -> Any: ...

    def read_seg(self, seg_fname: str) -> Any: ...

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: dict) -> None: ...


def test_an_unknown_reader_writer_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"uses OtherIO.*--maps none.*MAP_WRITERS"):
        write_map(np.zeros((1, 2, 3)), tmp_path / "case.nii.gz", {}, OtherIO())
    with pytest.raises(ValueError, match="uses OtherIO"):
        map_file_ending(".nii.gz", OtherIO())
    assert not list(tmp_path.iterdir())


def test_a_map_of_another_dimension_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"found the shape \(5, 6\)"):
        write_map(np.zeros((5, 6)), tmp_path / "case.tif", {}, NaturalImage2DIO())


def test_a_four_dimensional_image_is_refused(tmp_path: Path) -> None:
    geometry = {"spacing": (1, 1, 1, 1), "origin": (0, 0, 0, 0), "direction": tuple(np.eye(4).ravel())}
    with pytest.raises(ValueError, match=r"image has 4 dimensions.*CASE_0000"):
        write_map(np.zeros(SHAPE_ZYX), tmp_path / "case.nii.gz", {"sitk_stuff": geometry}, SimpleITKIO())


# --- smaller files ---

NIFTI_READERS = [
    pytest.param(SimpleITKIO(), _simpleitk_image_file, OBLIQUE_DIRECTION, id="SimpleITKIO"),
    pytest.param(SimpleITKIOWithReorient(), _simpleitk_image_file, PERMUTED_DIRECTION, id="SimpleITKIOWithReorient"),
    pytest.param(NibabelIO(), _nibabel_image_file, OBLIQUE_DIRECTION, id="NibabelIO"),
    pytest.param(NibabelIOWithReorient(), _nibabel_image_file, PERMUTED_DIRECTION, id="NibabelIOWithReorient"),
]
each_reader = pytest.mark.parametrize(("reader_writer", "image_file", "direction"), NIFTI_READERS)
each_nifti_ending = pytest.mark.parametrize("ending", [".nii", ".nii.gz"])


def _typed_maps(reader_writer: BaseReaderWriter, image: Path, ending: str) -> tuple[np.ndarray, dict[str, Path]]:
    """The same random map in every type, each in a folder of its own. Its corners are exactly 0 and 1."""
    voxels, properties = reader_writer.read_images((str(image),))
    values = np.random.default_rng(2).random(voxels.shape[1:])
    values[0, 0, 0], values[-1, -1, -1] = 0, 1
    paths = {}
    for map_type in MAP_TYPES:
        paths[map_type] = image.parent / map_type / f"case{ending}"
        paths[map_type].parent.mkdir()
        write_map(values, paths[map_type], properties, reader_writer, map_type)
    return values, paths


@each_nifti_ending
@each_reader
def test_a_map_in_uint8_is_read_as_probabilities_by_every_reader(
    tmp_path: Path, reader_writer: BaseReaderWriter, image_file: Any, direction: np.ndarray, ending: str
) -> None:
    """Values are rounded to multiples of 1/255, so they are off by half of that at most: 1/510."""
    values, paths = _typed_maps(reader_writer, image_file(tmp_path / f"case_0000{ending}", direction), ending)
    path = paths["uint8"]
    stored = nibabel.load(path)
    assert stored.get_data_dtype() == np.uint8
    off_by_at_most = 1 / 510 + 1e-6

    # nnU-Net's reader brings the map back to the axes on which it was computed
    found, _ = reader_writer.read_seg(str(path))
    np.testing.assert_allclose(found[0], values, rtol=0, atol=off_by_at_most)
    np.testing.assert_allclose(found[0], np.rint(values * 255) / 255, rtol=0, atol=1e-6)
    assert found[0, 0, 0, 0] == 0
    assert np.float32(found[0, -1, -1, -1]) == 1
    # other readers give the file as it lies there; that of the same map in float32 tells where it lies
    exact = paths["float32"]
    with_nibabel, exact_with_nibabel = (nibabel.load(file).get_fdata(dtype=np.float32) for file in (path, exact))
    np.testing.assert_allclose(with_nibabel, exact_with_nibabel, rtol=0, atol=off_by_at_most)
    assert (with_nibabel.min(), with_nibabel.max()) == (0, 1)
    with_simpleitk, exact_with_simpleitk = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in (path, exact)
    )
    np.testing.assert_allclose(with_simpleitk, exact_with_simpleitk, rtol=0, atol=off_by_at_most)
    assert (with_simpleitk.min(), with_simpleitk.max()) == (0, 1)


@pytest.mark.parametrize("map_type", ["float16", "uint8"])
@each_nifti_ending
@each_reader
def test_a_smaller_map_lies_where_that_in_single_precision_lies(
    tmp_path: Path,
    reader_writer: BaseReaderWriter,
    image_file: Any,
    direction: np.ndarray,
    ending: str,
    map_type: str,
) -> None:
    _, paths = _typed_maps(reader_writer, image_file(tmp_path / f"case_0000{ending}", direction), ending)
    smaller, exact = (nibabel.load(paths[name]) for name in (map_type, "float32"))
    assert smaller.shape == exact.shape
    np.testing.assert_array_equal(smaller.affine, exact.affine)
    for field in ("pixdim", "sform_code", "qform_code", "quatern_b", "quatern_c", "quatern_d", "xyzt_units"):
        np.testing.assert_array_equal(smaller.header[field], exact.header[field])
    smaller, exact = (sitk.ReadImage(str(paths[name])) for name in (map_type, "float32"))
    assert smaller.GetSpacing() == exact.GetSpacing()
    assert smaller.GetOrigin() == exact.GetOrigin()
    assert smaller.GetDirection() == exact.GetDirection()


@each_nifti_ending
def test_the_slope_is_in_the_header_and_the_numerators_are_in_the_file(tmp_path: Path, ending: str) -> None:
    """0.1 · 255 = 25.5 goes to the even 26, 0.5 · 255 = 127.5 to 128; 0.2 · 255 = 51; 0.999 · 255 = 254.7."""
    image = _simpleitk_image_file(tmp_path / "case_0000.nii.gz", OBLIQUE_DIRECTION)
    _, properties = SimpleITKIO().read_images((str(image),))
    values = np.zeros(SHAPE_ZYX)
    values[0, 0] = [0, 1, 0.1, 0.5, 0.2, 0.999]
    write_map(values, tmp_path / f"map{ending}", properties, SimpleITKIO(), "uint8")
    stored = nibabel.load(tmp_path / f"map{ending}")
    numerators = np.asarray(stored.dataobj.get_unscaled())
    assert numerators[:, 0, 0].tolist() == [0, 255, 26, 128, 51, 255]
    assert (stored.dataobj.slope, stored.dataobj.inter) == (np.float32(1 / 255), 0)


def test_what_is_outside_of_0_and_1_is_cut_off(tmp_path: Path) -> None:
    """As bytes −0.01 · 255 = −3 would be 253, and 1.01 · 255 = 258 would be 2."""
    image = _simpleitk_image_file(tmp_path / "case_0000.nii", OBLIQUE_DIRECTION)
    _, properties = SimpleITKIO().read_images((str(image),))
    values = np.full(SHAPE_ZYX, 1 + 1e-2)
    values[0] = -1e-2
    write_map(values, tmp_path / "map.nii", properties, SimpleITKIO(), "uint8")
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "map.nii")))
    assert np.unique(found[0]).tolist() == [0]
    assert np.unique(found[1:]).tolist() == [1]


@each_nifti_ending
@each_reader
def test_a_map_in_float16_holds_numpys_half_precision(
    tmp_path: Path, reader_writer: BaseReaderWriter, image_file: Any, direction: np.ndarray, ending: str
) -> None:
    values, paths = _typed_maps(reader_writer, image_file(tmp_path / f"case_0000{ending}", direction), ending)
    found, _ = reader_writer.read_seg(str(paths["float16"]))
    np.testing.assert_array_equal(found[0], values.astype(np.float16).astype(np.float32))
    assert nibabel.load(paths["float16"]).get_data_dtype() == np.float32  # no format has half precision


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_float16_is_for_every_format(tmp_path: Path, ending: str) -> None:
    values, paths = np.linspace(0, 1, np.prod(SHAPE_ZYX)).reshape(SHAPE_ZYX), tmp_path / f"case{ending}"
    _, properties = SimpleITKIO().read_images((str(_simpleitk_image_file(tmp_path / f"image{ending}", np.eye(3))),))
    write_map(values, paths, properties, SimpleITKIO(), "float16")
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(paths)))
    np.testing.assert_array_equal(found, values.astype(np.float16).astype(np.float32))


def test_a_2d_image_gets_a_2d_map_in_uint8(tmp_path: Path) -> None:
    image = _simpleitk_2d_image_file(tmp_path / "case_0000.nii.gz")
    values, paths = _typed_maps(SimpleITKIO(), image, ".nii.gz")
    written = sitk.ReadImage(str(paths["uint8"]))
    assert written.GetDimension() == 2
    np.testing.assert_allclose(sitk.GetArrayFromImage(written), values[0], rtol=0, atol=1 / 510 + 1e-6)


@pytest.mark.parametrize(
    ("name", "reader_writer"),
    [("case.nrrd", SimpleITKIO()), ("case.mha", SimpleITKIO()), ("case.tif", NaturalImage2DIO()),
     ("case.tiff", Tiff3DIO())],
)  # fmt: skip
def test_uint8_is_refused_where_no_slope_can_be_stored(
    tmp_path: Path, name: str, reader_writer: BaseReaderWriter
) -> None:
    message = rf"NIfTI .*; found {re.escape(name)}\. Use --map-dtype float16\."
    with pytest.raises(ValueError, match=message):
        write_map(np.zeros(SHAPE_ZYX), tmp_path / name, {"spacing": (1, 1, 1)}, reader_writer, "uint8")
    assert not list(tmp_path.iterdir())


def test_an_unknown_map_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one of float32, float16, uint8; found 'int16'"):
        write_map(np.zeros(SHAPE_ZYX), tmp_path / "case.nii", {}, SimpleITKIO(), "int16")  # type: ignore[arg-type]


@pytest.mark.parametrize("map_type", MAP_TYPES)
@each_nifti_ending
@each_reader
def test_nothing_but_the_map_is_left_behind(
    tmp_path: Path,
    reader_writer: BaseReaderWriter,
    image_file: Any,
    direction: np.ndarray,
    ending: str,
    map_type: str,
) -> None:
    _, paths = _typed_maps(reader_writer, image_file(tmp_path / f"case_0000{ending}", direction), ending)
    assert list(paths[map_type].parent.iterdir()) == [paths[map_type]]


def test_of_a_smooth_map_smaller_types_make_smaller_files(tmp_path: Path) -> None:
    """A Gaussian bump of 40 x 64 x 64 voxels, as an entropy around a boundary."""
    z, y, x = np.mgrid[-1:1:40j, -1:1:64j, -1:1:64j]
    values = np.exp(-4 * (z**2 + y**2 + x**2))
    properties = {"sitk_stuff": {"spacing": (1, 1, 1), "origin": (0, 0, 0), "direction": tuple(np.eye(3).ravel())}}
    sizes = {}
    for map_type in MAP_TYPES:
        path = tmp_path / f"{map_type}.nii.gz"
        write_map(values, path, properties, SimpleITKIO(), map_type)
        sizes[map_type] = path.stat().st_size
    assert sizes["uint8"] < sizes["float16"] < sizes["float32"]
    plain = tmp_path / "plain.nii"
    write_map(values, plain, properties, SimpleITKIO(), "uint8")
    assert plain.stat().st_size == 352 + values.size  # a header and a byte a voxel


def test_the_same_map_makes_the_same_bytes(tmp_path: Path) -> None:
    """A time in the header of the compression would make them differ."""
    properties = {"sitk_stuff": {"spacing": (1, 1, 1), "origin": (0, 0, 0), "direction": tuple(np.eye(3).ravel())}}
    for name in ("a", "b"):
        write_map(np.full(SHAPE_ZYX, 0.5), tmp_path / f"{name}.nii.gz", properties, SimpleITKIO(), "uint8")
    compressed = (tmp_path / "a.nii.gz").read_bytes()
    assert compressed == (tmp_path / "b.nii.gz").read_bytes()
    assert compressed[4:8] == bytes(4)  # MTIME of RFC 1952
