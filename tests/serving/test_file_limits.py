"""Files that are more than they seem: bombs, headers that name other files, and content of another format."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from nnunet_ext.serving.file_limits import require_small_file, require_small_stream
from nnunet_ext.serving.refusal import Refusal

VOXELS = 1000
SHAPE_XYZ = (10, 9, 8)


def image_file(folder: Path, ending: str, *, compressed: bool = True) -> Path:
    """A volume of 720 voxels."""
    image = sitk.GetImageFromArray(np.arange(720, dtype=np.float32).reshape(SHAPE_XYZ[::-1]))
    image.SetSpacing((0.5, 0.6, 3.0))
    path = folder / f"case_0000{ending}"
    sitk.WriteImage(image, str(path), compressed)
    return path


def edited(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


def status_of(path: Path, voxels: int = VOXELS) -> int:
    ending = ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix
    with pytest.raises(Refusal) as refusal:
        require_small_file(path, ending, voxels)
    assert str(path.parent) not in refusal.value.message
    return refusal.value.status


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".gipl"])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_volume_is_measured_by_its_header(tmp_path, ending, compressed):
    path = image_file(tmp_path, ending, compressed=compressed)
    announced = require_small_file(path, ending, 720)
    assert announced.shape == SHAPE_XYZ
    assert announced.numbers == 720
    assert announced.spacing_mm == pytest.approx((0.5, 0.6, 3.0))
    assert status_of(path, voxels=719) == 413


def test_pictures_are_measured_by_their_headers(tmp_path):
    for ending, shape in ((".png", (20, 10, 3)), (".bmp", (20, 10, 3)), (".tif", (20, 10))):
        path = tmp_path / f"case_0000{ending}"
        pixels = np.zeros(shape, np.uint8)
        tifffile.imwrite(path, pixels) if ending == ".tif" else Image.fromarray(pixels).save(path)
        assert require_small_file(path, ending, VOXELS).numbers == pixels.size
        assert status_of(path, voxels=pixels.size - 1) == 413


def test_a_small_file_that_announces_a_large_volume_is_refused_unread(tmp_path):
    path = image_file(tmp_path, ".nii", compressed=False)
    header = bytearray(path.read_bytes())
    header[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()  # dim[1..3]
    path.with_name("case_0000.nii").write_bytes(bytes(header))
    assert status_of(path, voxels=300_000_000) == 413


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_small_file_that_decompresses_to_a_large_one_is_refused(tmp_path, ending):
    zeros = bytes(30_000_000)
    path = image_file(tmp_path, ending)
    if ending == ".nii.gz":
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + zeros))
    elif ending == ".nrrd":
        start = path.read_bytes().index(b"\n\n") + 2
        path.write_bytes(path.read_bytes()[:start] + gzip.compress(zeros))
    else:
        start = path.read_bytes().index(b"LOCAL\n") + len(b"LOCAL\n")
        path.write_bytes(path.read_bytes()[:start] + zlib.compress(zeros))
    assert path.stat().st_size < 50_000
    assert status_of(path) == 413


def test_a_stream_is_measured_over_all_its_members(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(600)) * 2)
    require_small_stream(path, 1200)
    with pytest.raises(Refusal):
        require_small_stream(path, 1199)


def test_a_damaged_stream_is_left_to_the_checks_of_the_input(tmp_path):
    path = tmp_path / "a.gz"
    for content in (b"", b"\x1f\x8b", gzip.compress(bytes(600))[:-4], b"no stream"):
        path.write_bytes(content)
        require_small_stream(path, 1000)


# --- headers that name other files ---

META = b"ElementDataFile = LOCAL"
META_ELSEWHERE = [
    b"ElementDataFile = /etc/passwd",
    b"ElementDataFile = ../other/images/case_0000.mha",
    b"ElementDataFile = LIST",
    b"ElementDataFile : /etc/passwd\nElementDataFile = LOCAL",
    b"elementdatafile = /etc/passwd\nElementDataFile = LOCAL",
    b"ElementDataFile = LOCAL\nElementDataFile = /etc/passwd",
    b"Comment = " + b"x" * 70_000 + b"\nElementDataFile = LOCAL",
]


@pytest.mark.parametrize("line", META_ELSEWHERE)
def test_metaimage_files_hold_their_own_voxels(tmp_path, line):
    assert status_of(edited(image_file(tmp_path, ".mha"), META, line)) == 422


@pytest.mark.parametrize(
    "line", [b"data file: /etc/passwd", b"datafile: /etc/passwd", b"data file: LIST", b" \ndata file: /etc/passwd"]
)
def test_nrrd_files_hold_their_own_voxels(tmp_path, line):
    assert status_of(edited(image_file(tmp_path, ".nrrd"), b"endian: little", line + b"\nendian: little")) == 422


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".gipl"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# vtk DataFile Version 3.0\nx\nASCII\nDATASET STRUCTURED_POINTS\n",
        b"\x89HDF\r\n\x1a\n" + bytes(2000),  # names other files, as external storage
        b"NRRD0004\ntype: float\ndimension: 1\nsizes: 4\nencoding: raw\ndata file: /etc/passwd\n\n",
        b"ObjectType = Image\nNDims = 1\nDimSize = 4\nElementType = MET_UCHAR\nElementDataFile = /etc/passwd\n",
        bytes(128) + b"DICM" + bytes(2000),
    ],
)
def test_content_of_another_format_is_refused(tmp_path, ending, content):
    path = tmp_path / f"case_0000{ending}"
    path.write_bytes(content)
    assert status_of(path) == 422


def test_pictures_are_of_the_format_that_their_name_says(tmp_path):
    path = tmp_path / "case_0000.png"
    for content in (b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(content)
        assert status_of(path) == 422
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "b.bmp")
    (tmp_path / "b.bmp").replace(path)
    assert status_of(path) == 422


def test_ome_tiff_which_names_other_files_is_refused(tmp_path):
    path = tmp_path / "case_0000.tif"
    tifffile.imwrite(path, np.zeros((4, 4), np.uint8), ome=True)
    assert status_of(path) == 422


def test_an_ending_that_nobody_reads_is_refused(tmp_path):
    (tmp_path / "case_0000.jpg").write_bytes(b"")
    assert status_of(tmp_path / "case_0000.jpg") == 422
