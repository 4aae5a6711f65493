"""Damaged and inconsistent files: each bad input with the part of the message by which a person recognises it.

"Stock: silent" marks what nnU-Net's own reader reads without an error (seen with nnU-Net 2.8.1, SimpleITK 2.5.7,
nibabel 5.4, tifffile 2026.3, Pillow 13); what it makes of the file stands beside it. "Stock: refuses" marks a bare
exception of the reader that does not name the reason.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import pytest
import SimpleITK as sitk
import skimage.io
import tifffile
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_ext.input_checks import CHECKS, BadInputError, Finding, check_case, require_good_case
from nnunet_ext.machine.available_memory import available_memory_bytes

NAN, INF = float("nan"), float("inf")
Arguments = dict[str, Any]  # of check_case

# Byte positions in a NIfTI-1 header, from the standard (nifti1.h).
DIM, INTENT_CODE, DATATYPE, PIXDIM, VOX_OFFSET, SCL_SLOPE = 40, 68, 70, 76, 108, 112
QFORM_CODE, SFORM_CODE, QUATERN_B, QOFFSET_X, SROW_X, SROW_Y, MAGIC = 252, 254, 256, 268, 280, 296, 344


# ---- good files to start from -------------------------------------------------------------------------------------


def volume(*shape: int, dtype: str = "float32") -> np.ndarray:
    """Noise around 100 in 6 x 7 x 8 voxels, or in the given shape."""
    return np.random.default_rng(0).normal(100, 10, shape or (6, 7, 8)).astype(dtype)


def grey_picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (16, 17), dtype=np.uint8)


def colour_picture(channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (16, 17, channels), dtype=np.uint8)


def write_nifti(path: Path, array: np.ndarray | None = None, affine: np.ndarray | None = None) -> Path:
    array = volume() if array is None else array
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 2, 3, 1.0]) if affine is None else affine), path)
    return path


def write_itk(path: Path, array: np.ndarray | None = None, compress: bool = False, vector: bool = False) -> Path:
    image = sitk.GetImageFromArray(volume() if array is None else array, isVector=vector)
    if image.GetDimension() == 3:
        image.SetSpacing((1.0, 2.0, 3.0))
        image.SetOrigin((5.0, 6.0, 7.0))
    sitk.WriteImage(image, str(path), compress)
    return path


def case(*files: Path, channels: int | None = None, **others: Any) -> Arguments:
    """Arguments of check_case: one channel a file unless told otherwise."""
    ending = ".nii.gz" if files[0].name.endswith(".nii.gz") else files[0].suffix
    count = len(files) if channels is None else channels
    return {"files": files, "file_ending": ending, "channels": count, **others}


def edit(path: Path, change: Callable[[bytearray], Any]) -> Path:
    """Changes the bytes of a file, those inside the gzip stream of a .gz file."""
    is_gzip = path.suffix == ".gz"
    data = bytearray(gzip.decompress(path.read_bytes()) if is_gzip else path.read_bytes())
    change(data)
    path.write_bytes(gzip.compress(bytes(data)) if is_gzip else bytes(data))
    return path


def nifti_with(folder: Path, position: int, code: str, *values: float | bytes, name: str = "a_0000.nii.gz") -> Path:
    """A good NIfTI file but for the numbers at one position of its header."""
    return edit(write_nifti(folder / name), lambda data: struct.pack_into("<" + code, data, position, *values))


def itk_with(folder: Path, name: str, old: bytes, new: bytes) -> Path:
    """A good .mha or .nrrd file but for some words of its header."""
    path = write_itk(folder / name)
    assert path.read_bytes().count(old) == 1
    path.write_bytes(path.read_bytes().replace(old, new))
    return path


def cut(path: Path, keep: float = 0.5, last_bytes: int = 0) -> Path:
    """Cuts the file: to a share of its length, or by some bytes at its end."""
    data = path.read_bytes()
    path.write_bytes(data[:-last_bytes] if last_bytes else data[: int(len(data) * keep)])
    return path


def flip(path: Path, position: int) -> Path:
    """Inverts one byte of the file as stored."""
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(bytes(data))
    return path


# ---- bad inputs ---------------------------------------------------------------------------------------------------

BAD_INPUTS: list[Any] = []


def bad_input(message: str) -> Callable[[Callable[[Path], Arguments]], Callable[[Path], Arguments]]:
    """Lists a function that makes a bad case, with a part of the message that must come of it."""

    def add(make: Callable[[Path], Arguments]) -> Callable[[Path], Arguments]:
        BAD_INPUTS.append(pytest.param(make, message, id=make.__name__))
        return make

    return add


# Files that are absent, or not what their name says


@bad_input("found no such file")
def file_is_absent(folder: Path) -> Arguments:
    return case(folder / "a_0000.nii.gz")


@bad_input("found a folder")
def folder_in_place_of_a_file(folder: Path) -> Arguments:
    (folder / "a_0000.nii.gz").mkdir()
    return case(folder / "a_0000.nii.gz")


@bad_input("expected a name that ends in .nii.gz")
def file_of_another_format(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK goes by the content, other readers do not.
    return {"files": [write_itk(folder / "a_0000.nrrd")], "file_ending": ".nii.gz", "channels": 1}


@bad_input("0 bytes that do not begin with a NIfTI header")
def nifti_without_a_byte(folder: Path) -> Arguments:
    (folder / "a_0000.nii.gz").write_bytes(b"")
    return case(folder / "a_0000.nii.gz")


@bad_input("do not begin with a NIfTI header")
def nifti_that_is_a_text(folder: Path) -> Arguments:
    (folder / "a_0000.nii.gz").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 20)
    return case(folder / "a_0000.nii.gz")


@bad_input("do not begin with a NIfTI header")
def nifti_header_without_magic_number(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK takes it for an Analyze file and ignores the orientation.
    return case(nifti_with(folder, MAGIC, "4s", b"xxxx"))


@bad_input("found no such file")
def link_to_a_file_that_is_gone(folder: Path) -> Arguments:
    (folder / "a_0000.nii.gz").symlink_to(folder / "elsewhere.nii.gz")
    return case(folder / "a_0000.nii.gz")


@bad_input("a file that cannot be opened")
def file_that_may_not_be_read(folder: Path) -> Arguments:
    path = write_nifti(folder / "a_0000.nii.gz")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("the administrator may read every file")
    return case(path)


@bad_input("a header that SimpleITK refuses")
def mha_without_a_byte(folder: Path) -> Arguments:
    (folder / "a_0000.mha").write_bytes(b"")
    return case(folder / "a_0000.mha")


@bad_input("a header that SimpleITK refuses")
def nrrd_without_a_byte(folder: Path) -> Arguments:
    (folder / "a_0000.nrrd").write_bytes(b"")
    return case(folder / "a_0000.nrrd")


@bad_input("found a file without the PNG signature")
def png_without_a_byte(folder: Path) -> Arguments:
    (folder / "a_0000.png").write_bytes(b"")
    return case(folder / "a_0000.png")


@bad_input("a file that cannot be decoded")
def tiff_without_a_byte(folder: Path) -> Arguments:
    (folder / "a_0000.tiff").write_bytes(b"")
    return case(folder / "a_0000.tiff")


@bad_input("a header that SimpleITK refuses")
def nrrd_that_is_a_text(folder: Path) -> Arguments:
    (folder / "a_0000.nrrd").write_text("<html>404 not found</html>\n" * 20)
    return case(folder / "a_0000.nrrd")


@bad_input("a file that cannot be decoded")
def tiff_that_is_a_text(folder: Path) -> Arguments:
    (folder / "a_0000.tiff").write_text("<html>404 not found</html>\n" * 20)
    return case(folder / "a_0000.tiff")


@bad_input("found another image under the name a_0000.nii beside it, from which SimpleITK would read the voxels")
def nifti_gz_beside_another_image_of_its_name(folder: Path) -> Arguments:
    # Stock: silent. The NIfTI library of ITK takes the header of a_0000.nii.gz and the voxels of a_0000.nii.
    write_nifti(folder / "a_0000.nii", volume() + 50)
    return case(write_nifti(folder / "a_0000.nii.gz"))


@bad_input("found gzip-compressed content; expected a plain file under the name .nii")
def gzip_under_the_name_nii(folder: Path) -> Arguments:
    return case(write_nifti(folder / "a_0000.nii.gz").rename(folder / "a_0000.nii"))


@bad_input("found content that is not gzip-compressed; expected gzip under the name .nii.gz")
def plain_nifti_under_the_name_nii_gz_for_nibabel(folder: Path) -> Arguments:
    path = write_nifti(folder / "a_0000.nii").rename(folder / "a_0000.nii.gz")
    return {"files": [path], "file_ending": ".nii.gz", "channels": 1, "reader": "NibabelIO"}


# Streams that are truncated or damaged


@bad_input("compressed stream that is truncated after")
def nifti_gz_cut_in_the_middle(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK fills the missing part with zeros.
    return case(cut(write_nifti(folder / "a_0000.nii.gz")))


@bad_input("compressed stream that is truncated after 1696 bytes")
def nifti_gz_without_its_checksum(folder: Path) -> Arguments:
    # Stock: silent. All voxels are there: 352 bytes of header + 6 * 7 * 8 * 4 of voxels = 1696.
    return case(cut(write_nifti(folder / "a_0000.nii.gz"), last_bytes=8))


@bad_input("damaged compressed stream (Error -3 while decompressing data: incorrect data check")
def nifti_gz_with_a_wrong_checksum(folder: Path) -> Arguments:
    # Stock: silent, unless the file is so small that ITK reads it to its end for the header.
    # A gzip file ends with its CRC-32 and its length, 4 bytes each.
    return case(flip(write_nifti(folder / "a_0000.nii.gz", volume(64, 64, 40)), -7))


@bad_input("damaged compressed stream")
def nifti_gz_with_a_damaged_byte(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK fills what comes after the damage with zeros.
    path = write_nifti(folder / "a_0000.nii.gz", volume(64, 64, 40))
    return case(flip(path, path.stat().st_size // 2))


@bad_input("found 1024 bytes of voxel data; expected 1344 bytes")
def nifti_gz_made_from_a_cut_nifti(folder: Path) -> Arguments:
    # Stock: silent, zeros. The gzip stream is whole: only the size, 6 * 7 * 8 * 4 = 1344, tells. 320 bytes are cut.
    return case(edit(write_nifti(folder / "a_0000.nii.gz"), lambda data: data.__delitem__(slice(-320, None))))


@bad_input("found 1340 bytes of voxel data; expected 1344 bytes")
def nifti_without_its_last_voxel(folder: Path) -> Arguments:
    return case(cut(write_nifti(folder / "a_0000.nii"), last_bytes=4))


@bad_input("found 1344 bytes of voxel data; expected 1120 bytes, which the header specifies for 1 x 5 x 7 x 8 voxels")
def nifti_header_with_a_slice_less(folder: Path) -> Arguments:
    # Stock: silent, and the last slice is lost. 8 * 7 * 5 * 4 = 1120.
    return case(edit(write_nifti(folder / "a_0000.nii.gz", volume(8, 7, 6)), set_dim(3, 8, 7, 5)))


# Files that decompress to far more than their headers say

BOMB_BYTES = 1 << 28  # in 256 KiB


@bad_input("compressed stream of more than")
def nifti_gz_bomb(folder: Path) -> Arguments:
    # Stock: silent. What follows the voxels is read over.
    path = write_nifti(folder / "a_0000.nii.gz")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(BOMB_BYTES)))
    return case(path)


@bad_input("compressed stream of more than")
def mha_bomb(folder: Path) -> Arguments:
    path = write_itk(folder / "a_0000.mha", compress=True)
    header, mark, _ = path.read_bytes().partition(b"ElementDataFile = LOCAL\n")
    path.write_bytes(header + mark + zlib.compress(bytes(BOMB_BYTES)))
    return case(path)


@bad_input("compressed stream of more than")
def nrrd_bomb(folder: Path) -> Arguments:
    path = write_itk(folder / "a_0000.nrrd", compress=True)
    header, mark, _ = path.read_bytes().partition(b"\n\n")
    path.write_bytes(header + mark + gzip.compress(bytes(BOMB_BYTES)))
    return case(path)


# Compressed MetaImage and NRRD files


@bad_input("compressed stream that is truncated")
def mha_compressed_and_cut(folder: Path) -> Arguments:
    # Stock: refuses with "Reason: No such file or directory".
    return case(cut(write_itk(folder / "a_0000.mha", compress=True), 0.7))


@bad_input("damaged compressed stream")
def mha_compressed_with_a_wrong_checksum(folder: Path) -> Arguments:
    # Stock: silent. A zlib stream ends with its Adler-32.
    return case(flip(write_itk(folder / "a_0000.mha", compress=True), -2))


@bad_input("damaged compressed stream")
def mha_compressed_with_a_damaged_byte(folder: Path) -> Arguments:
    # Stock: silent. "Uncompress failed" goes to stderr and the voxels are garbage from the damage on.
    path = write_itk(folder / "a_0000.mha", volume(8, 64, 64), compress=True)
    return case(flip(path, path.stat().st_size // 2))


@bad_input("found 1343 bytes of voxel data; expected 1344 bytes")
def mha_without_its_last_byte(folder: Path) -> Arguments:
    return case(cut(write_itk(folder / "a_0000.mha"), last_bytes=1))


@bad_input("found 1343 bytes of voxel data; expected 1344 bytes")
def nrrd_without_its_last_byte(folder: Path) -> Arguments:
    return case(cut(write_itk(folder / "a_0000.nrrd"), last_bytes=1))


@bad_input("compressed stream that is truncated after 1344 bytes")
def nrrd_gzip_without_its_last_byte(folder: Path) -> Arguments:
    # Stock: silent. All voxels are there, the checksum is not.
    return case(cut(write_itk(folder / "a_0000.nrrd", compress=True), last_bytes=1))


@bad_input("damaged compressed stream")
def nrrd_gzip_with_a_wrong_checksum(folder: Path) -> Arguments:
    return case(flip(write_itk(folder / "a_0000.nrrd", compress=True), -7))


@bad_input("found 544 bytes of voxel data; expected 1344 bytes")
def gipl_cut_in_the_middle(folder: Path) -> Arguments:
    # Stock: silent, zeros or garbage. 1600 bytes, of which 256 are the header: half of them hold 800 - 256 = 544.
    return case(cut(write_itk(folder / "a_0000.gipl")))


@bad_input("a header that SimpleITK refuses")
def mha_cut_in_its_header(folder: Path) -> Arguments:
    return case(cut(write_itk(folder / "a_0000.mha"), 0.05))


@bad_input("a truncated PNG file")
def png_cut_in_the_middle(folder: Path) -> Arguments:
    skimage.io.imsave(folder / "a_0000.png", grey_picture(), check_contrast=False)
    return case(cut(folder / "a_0000.png"))


@bad_input("a truncated PNG file; expected a PNG file up to its IEND chunk")
def png_without_its_end(folder: Path) -> Arguments:
    # Stock: silent, and the picture is whole if no more is lost.
    skimage.io.imsave(folder / "a_0000.png", grey_picture(), check_contrast=False)
    return case(cut(folder / "a_0000.png", last_bytes=12))


@bad_input("a PNG chunk b'IDAT' that fails its checksum")
def png_with_a_wrong_checksum(folder: Path) -> Arguments:
    # Stock: silent. The last 12 bytes are the IEND chunk, the 4 before them the CRC-32 of the IDAT chunk.
    skimage.io.imsave(folder / "a_0000.png", grey_picture(), check_contrast=False)
    return case(flip(folder / "a_0000.png", -13))


@bad_input("found a file without the PNG signature")
def png_that_is_a_bmp(folder: Path) -> Arguments:
    # Stock: silent, and the picture is right: Pillow goes by the content. But nothing else may hold this name.
    skimage.io.imsave(folder / "a_0000.bmp", grey_picture(), check_contrast=False)
    return case((folder / "a_0000.bmp").rename(folder / "a_0000.png"))


@bad_input("a file that cannot be decoded (image file is truncated")
def bmp_cut_in_the_middle(folder: Path) -> Arguments:
    skimage.io.imsave(folder / "a_0000.bmp", grey_picture(), check_contrast=False)
    return case(cut(folder / "a_0000.bmp"))


@bad_input("list of pages ends abruptly after page")
def tiff_stack_cut_to_its_first_page(folder: Path) -> Arguments:
    # Stock: silent under NaturalImage2DIO, which gets one page of a stack as a 2D picture.
    tifffile.imwrite(folder / "a_0000.tif", volume(5, 16, 17, dtype="uint16"), compression="zlib")
    return case(cut(folder / "a_0000.tif"))


@bad_input("a file that cannot be decoded")
def tiff_picture_cut(folder: Path) -> Arguments:
    tifffile.imwrite(folder / "a_0000.tif", grey_picture())
    return case(cut(folder / "a_0000.tif", 0.9))


@bad_input("a file that cannot be decoded")
def tiff_stack_with_a_damaged_page(folder: Path) -> Arguments:
    path = folder / "a_0000.tiff"
    tifffile.imwrite(path, volume(5, 16, 17, dtype="uint16"), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        position = tiff.pages[2].dataoffsets[0]
    return case(flip(path, position + 40))


# Voxels


@bad_input("found 2 NaN and 1 infinite voxels of 336")
def nifti_with_nan_and_inf(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK turns all three into 0.
    array = volume()
    array[0, 0, 0], array[1, 2, 3], array[3, 3, 3] = NAN, NAN, INF
    return case(write_nifti(folder / "a_0000.nii.gz", array))


@bad_input("found 1 NaN and 0 infinite voxels of 336")
def nifti_with_nan_for_nibabel(folder: Path) -> Arguments:
    # Stock: silent. NibabelIO keeps the NaN, which then spreads through the normalisation to all voxels.
    array = volume()
    array[1, 2, 3] = NAN
    return case(write_nifti(folder / "a_0000.nii", array))


@bad_input("found 0 NaN and 1 infinite voxels of 336")
def nifti_with_a_value_beyond_32_bits(folder: Path) -> Arguments:
    # Stock: silent. nnU-Net's conversion to float32, of which 3.4e38 is the largest, makes Inf of 1e39.
    array = volume(dtype="float64")
    array[0, 0, 0] = 1e39
    return case(write_nifti(folder / "a_0000.nii.gz", array))


@bad_input("found 0 NaN and 336 infinite voxels of 336")
def nifti_scaled_beyond_32_bits(folder: Path) -> Arguments:
    # Stock: silent, Inf.
    # Stored integers of 60 to 140, times 1e37: each above 3.4e38.
    path = write_nifti(folder / "a_0000.nii.gz", volume(dtype="int16"))
    return case(edit(path, lambda data: struct.pack_into("<2f", data, SCL_SLOPE, 1e37, 0)))


@bad_input("found scl_slope nan and scl_inter 0")
def nifti_with_nan_slope(folder: Path) -> Arguments:
    # Stock: silent. Both readers leave the scaling out.
    return case(nifti_with(folder, SCL_SLOPE, "2f", NAN, 0))


@bad_input("found scl_slope 1 and scl_inter nan")
def nifti_with_nan_intercept(folder: Path) -> Arguments:
    # Stock: silent under SimpleITK, which leaves the scaling out; nibabel refuses.
    return case(nifti_with(folder, SCL_SLOPE, "2f", 1, NAN))


@bad_input("found scl_slope inf and scl_inter 0")
def nifti_with_infinite_slope(folder: Path) -> Arguments:
    # Stock: silent. Both readers leave the scaling out.
    return case(nifti_with(folder, SCL_SLOPE, "2f", INF, 0))


@bad_input("found scl_slope 0 and scl_inter 5 in the header, for which SimpleITK uses slope 1")
def nifti_with_an_intercept_but_no_slope(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK adds 5, nibabel and the standard do not.
    return case(nifti_with(folder, SCL_SLOPE, "2f", 0, 5))


@bad_input("found scl_slope 1e-20 and scl_inter 0 in the header, for which SimpleITK uses slope 1")
def nifti_with_a_tiny_slope(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK leaves a slope below 2^-52 out, nibabel does not.
    return case(nifti_with(folder, SCL_SLOPE, "2f", 1e-20, 0))


@bad_input("found 0 NaN and 1 infinite voxels")
def mha_with_inf(folder: Path) -> Arguments:
    # Stock: silent, and Inf stays: in .mha, .nrrd and .gipl SimpleITK replaces nothing.
    array = volume()
    array[0, 0, 0] = INF
    return case(write_itk(folder / "a_0000.mha", array))


@bad_input("found 1 NaN and 0 infinite voxels")
def nrrd_with_nan(folder: Path) -> Arguments:
    # Stock: silent, and NaN stays.
    array = volume()
    array[0, 0, 0] = NAN
    return case(write_itk(folder / "a_0000.nrrd", array, compress=True))


@bad_input("found 1 NaN and 0 infinite voxels")
def gipl_with_nan(folder: Path) -> Arguments:
    # Stock: silent, and NaN stays.
    array = volume()
    array[0, 0, 0] = NAN
    return case(write_itk(folder / "a_0000.gipl", array))


@bad_input("found 1 NaN and 0 infinite voxels of 1360")
def tiff_stack_with_nan(folder: Path) -> Arguments:
    # Stock: silent, and NaN stays.
    array = volume(5, 16, 17)
    array[2, 3, 4] = NAN
    tifffile.imwrite(folder / "a_0000.tiff", array)
    return case(folder / "a_0000.tiff")


@bad_input("found the same value, 0, in all voxels; expected contrast")
def image_of_zeros(folder: Path) -> Arguments:
    # Stock: silent. There is nothing to crop to, and the network predicts on zeros.
    return case(write_nifti(folder / "a_0000.nii.gz", np.zeros((6, 7, 8), np.float32)))


@bad_input("a_0000.nii.gz: found the same value, -1024, in all voxels")
def two_channels_of_air_only(folder: Path) -> Arguments:
    # Stock: silent.
    air = np.full((6, 7, 8), -1024, np.int16)
    return case(write_nifti(folder / "a_0000.nii.gz", air), write_nifti(folder / "a_0001.nii.gz", air))


@bad_input("found the same value, 255, in all voxels")
def png_all_white(folder: Path) -> Arguments:
    # Stock: silent.
    skimage.io.imsave(folder / "a_0000.png", np.full((16, 17, 3), 255, np.uint8), check_contrast=False)
    return case(folder / "a_0000.png", channels=3)


# Geometry


def set_dim(axes: int, *lengths: int) -> Callable[[bytearray], None]:
    """Overwrites dim[0] and the lengths of the axes in a NIfTI header."""
    return lambda data: struct.pack_into(f"<{1 + len(lengths)}h", data, DIM, axes, *lengths)


@bad_input("found a spacing of (1, 2, 0); expected finite numbers above 0")
def nifti_with_zero_spacing(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK and nibabel both make it 1.
    return case(nifti_with(folder, PIXDIM + 12, "f", 0))


@bad_input("found a spacing of (1, 2, nan)")
def nifti_with_nan_spacing(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK makes it 1, nibabel hands NaN on.
    return case(nifti_with(folder, PIXDIM + 12, "f", NAN))


@bad_input("found a spacing of (1, -2, 3)")
def nifti_with_negative_spacing(folder: Path) -> Arguments:
    # Stock: silent. nibabel takes the absolute value, SimpleITK also mirrors the axis in space.
    return case(nifti_with(folder, PIXDIM + 8, "f", -2))


@bad_input("found a spacing of (1, 2, inf)")
def nifti_with_infinite_spacing_for_nibabel(folder: Path) -> Arguments:
    # Stock: silent. nibabel hands Inf on.
    return case(nifti_with(folder, PIXDIM + 12, "f", INF, name="a_0000.nii"))


@bad_input("found a spacing of (1, 2, 0)")
def mha_with_zero_spacing(folder: Path) -> Arguments:
    return case(itk_with(folder, "a_0000.mha", b"ElementSpacing = 1 2 3", b"ElementSpacing = 1 2 0"))


@bad_input("found a spacing of (1, 2, -3)")
def mha_with_negative_spacing(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK mirrors the axis in space.
    return case(itk_with(folder, "a_0000.mha", b"ElementSpacing = 1 2 3", b"ElementSpacing = 1 2 -3"))


@bad_input('found "ElementSpacing = 1 2 nan" in the header; expected finite numbers')
def mha_with_nan_spacing(folder: Path) -> Arguments:
    return case(itk_with(folder, "a_0000.mha", b"ElementSpacing = 1 2 3", b"ElementSpacing = 1 2 nan"))


@bad_input("found a spacing of (1, 2, 0)")
def nrrd_with_zero_spacing(folder: Path) -> Arguments:
    return case(itk_with(folder, "a_0000.nrrd", b"(0,0,3)", b"(0,0,0)"))


@bad_input("a header that SimpleITK refuses")
def nrrd_with_nan_spacing(folder: Path) -> Arguments:
    return case(itk_with(folder, "a_0000.nrrd", b"(0,0,3)", b"(0,0,nan)"))


@bad_input("found a spacing of (1, 2, nan)")
def gipl_with_nan_spacing(folder: Path) -> Arguments:
    # Stock: silent. A GIPL header holds four axis lengths, the voxel type and, from byte 10, the spacing; big endian.
    path = write_itk(folder / "a_0000.gipl")
    return case(edit(path, lambda data: struct.pack_into(">f", data, 18, NAN)))


@bad_input("found a spacing of (0.5, 0.5, 0)")
def tiff_stack_with_zero_spacing(folder: Path) -> Arguments:
    # Stock: silent in the image; only a segmentation with such a spacing is refused.
    tifffile.imwrite(folder / "a_0000.tiff", volume(5, 16, 17))
    (folder / "a.json").write_text(json.dumps({"spacing": [0, 0.5, 0.5]}))
    return case(folder / "a_0000.tiff")


@bad_input("no usable spacing in a.json")
def tiff_stack_with_two_spacings(folder: Path) -> Arguments:
    tifffile.imwrite(folder / "a_0000.tiff", volume(5, 16, 17))
    (folder / "a.json").write_text(json.dumps({"spacing": [0.5, 0.5]}))
    return case(folder / "a_0000.tiff")


@bad_input("found an origin of (nan, 0, 0)")
def nifti_with_nan_in_the_sform(folder: Path) -> Arguments:
    # Stock: silent. The segmentation would lie nowhere.
    return case(nifti_with(folder, SROW_X + 12, "f", NAN))


@bad_input("found directions of (nan, ")
def nifti_with_nan_in_the_quaternion(folder: Path) -> Arguments:
    # Stock: silent under SimpleITK, which makes it 0. qform code 1 and sform code 0: only the quaternion counts.
    path = nifti_with(folder, QFORM_CODE, "2h", 1, 0)
    return case(edit(path, lambda data: struct.pack_into("<f", data, QUATERN_B, NAN)))


@bad_input("found an origin of (0, nan, 0)")
def nifti_with_nan_in_the_qform_offset(folder: Path) -> Arguments:
    # Stock: silent under SimpleITK, which makes it 0.
    path = nifti_with(folder, QFORM_CODE, "2h", 1, 0)
    return case(edit(path, lambda data: struct.pack_into("<f", data, QOFFSET_X + 4, NAN)))


@bad_input("a quaternion in the header that is not a rotation")
def nifti_with_a_quaternion_that_is_too_long(folder: Path) -> Arguments:
    # Stock: silent under SimpleITK, which makes some rotation of it.
    path = nifti_with(folder, QFORM_CODE, "2h", 1, 0)
    return case(edit(path, lambda data: struct.pack_into("<3f", data, QUATERN_B, 2, 2, 2)))


@bad_input("found singular directions")
def nifti_with_an_axis_without_length(folder: Path) -> Arguments:
    # Stock: refuses ("No orthonormal definition found").
    return case(nifti_with(folder, SROW_X, "4f", 0, 0, 0, 0))


@bad_input("found singular directions")
def nifti_with_two_axes_in_one_direction_for_nibabel(folder: Path) -> Arguments:
    # Stock: silent under nibabel. Columns (0, 2, 0) and (0, 2, 0): x and y point the same way.
    path = nifti_with(folder, SROW_X, "4f", 0, 0, 0, 0, name="a_0000.nii")
    return case(edit(path, lambda data: struct.pack_into("<4f", data, SROW_Y, 2, 2, 0, 0)))


@bad_input("a header that SimpleITK refuses (ITK only supports orthonormal direction cosines")
def nifti_with_a_sheared_grid(folder: Path) -> Arguments:
    return case(nifti_with(folder, SROW_X, "4f", 1, 0.5, 0, 0))


@bad_input("found a spacing of (1, 2, 4) by pixdim and of (1, 2, 3) by the sform in the header")
def nifti_with_two_spacings(folder: Path) -> Arguments:
    # Stock: silent but for a printed warning of ITK. Both readers take pixdim.
    return case(nifti_with(folder, PIXDIM + 12, "f", 4))


def nifti_with_two_positions(folder: Path, sform: np.ndarray, qform: np.ndarray, codes: tuple[int, int]) -> Path:
    image = nibabel.Nifti1Image(volume(), sform)
    image.set_sform(sform, codes[0])
    image.set_qform(qform, codes[1])
    nibabel.save(image, folder / "a_0000.nii.gz")
    return folder / "a_0000.nii.gz"


SFORM = np.array([[1.0, 0, 0, 10], [0, 1, 0, -20], [0, 0, 5, 5], [0, 0, 0, 1]])


@bad_input(
    "found two positions in the header, up to 22.9 mm apart: by sform (code 2) the first voxel is at (10, -20, 5), "
    "by qform (code 1) at (0, 0, 0); expected the same position in both"
)
def nifti_with_two_origins(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK writes at the qform, viewers that go by the sform do not. |(10, 20, 5)| = 22.9
    return case(nifti_with_two_positions(folder, SFORM, np.diag([1.0, 1, 5, 1]), (2, 1)))


@bad_input("found two positions in the header, up to 20 mm apart")
def nifti_with_two_origins_for_nibabel(folder: Path) -> Arguments:
    qform = SFORM.copy()
    qform[1, 3] += 20
    return case(nifti_with_two_positions(folder, SFORM, qform, (1, 1)), reader="NibabelIO")


@bad_input("found two positions in the header, up to ")
def nifti_with_two_orientations(folder: Path) -> Arguments:
    turned = SFORM @ np.diag([-1.0, -1, 1, 1])
    return case(nifti_with_two_positions(folder, SFORM, turned, (4, 1)))


@bad_input('found "Offset = 5 6 7" and "Position = 5 6 9" in the header; expected one position')
def mha_with_two_positions(folder: Path) -> Arguments:
    # Stock: silent.
    return case(itk_with(folder, "a_0000.mha", b"Offset = 5 6 7\n", b"Offset = 5 6 7\nPosition = 5 6 9\n"))


# Units that the reader ignores: what it calls mm is something else


def nifti_in(unit: str, path: Path) -> Path:
    image = nibabel.Nifti1Image(volume(), np.diag([10.0, 10, 50, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


@bad_input("found micrometres in the header (xyzt_units), which NibabelIO ignores; expected mm")
def nifti_in_micrometres_for_nibabel(folder: Path) -> Arguments:
    # Stock: silent. Distances are 1000 times too large, volumes 10^9 times.
    return case(nifti_in("micron", folder / "a_0000.nii"))


@bad_input("found metres in the header (xyzt_units), which NibabelIOWithReorient ignores; expected mm")
def nifti_in_metres_for_nibabel(folder: Path) -> Arguments:
    return case(nifti_in("meter", folder / "a_0000.nii"), reader="NibabelIOWithReorient")


@bad_input("found um in the header (spaceunits), which SimpleITK ignores; expected mm")
def nrrd_in_micrometres(folder: Path) -> Arguments:
    # Stock: silent. ITK does not read the units of NRRD.
    return case(itk_with(folder, "a_0000.nrrd", b"endian:", b'space units: "um" "um" "um"\nendian:'))


@bad_input("found um in the header (DistanceUnits), which SimpleITK ignores; expected mm")
def mha_in_micrometres(folder: Path) -> Arguments:
    # Stock: silent. ITK does not read the units of MetaImage.
    return case(itk_with(folder, "a_0000.mha", b"ElementSpacing", b"DistanceUnits = um\nElementSpacing"))


@bad_input("found sform_code = 258 in the header; expected 0 to 5")
def nifti_with_an_unknown_sform_code(folder: Path) -> Arguments:
    # Stock: silent. nibabel forgets the sform, and with it where the image lies; SimpleITK takes it. 258 is 2 with a
    # bit too many.
    return case(nifti_with(folder, SFORM_CODE, "h", 258, name="a_0000.nii"))


@bad_input("found qform_code = -1 in the header; expected 0 to 5")
def nifti_with_a_negative_qform_code(folder: Path) -> Arguments:
    # Stock: silent.
    return case(nifti_with(folder, QFORM_CODE, "h", -1))


@bad_input("found pixdim[0] = -3 in the header, which says whether z is mirrored; expected 1 or -1")
def nifti_with_an_ambiguous_qfac(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK mirrors z, nibabel does not.
    path = nifti_with(folder, QFORM_CODE, "2h", 1, 0)
    return case(edit(path, lambda data: struct.pack_into("<f", data, PIXDIM, -3)))


@bad_input("a quaternion in the header that is not a rotation")
def nifti_with_a_broken_qform_beside_its_sform(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK prefers a qform of the scanner to an sform of a template, and takes this one for 1.
    path = nifti_with(folder, QFORM_CODE, "2h", 1, 4)
    return case(edit(path, lambda data: struct.pack_into("<3f", data, QUATERN_B, 2, 2, 2)))


@bad_input("found a qform in the header that is NaN or infinite, beside an sform; expected finite numbers in both")
def nifti_with_nan_in_the_qform_beside_its_sform(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK prefers the qform here, and makes 0 of NaN.
    path = nifti_with(folder, QFORM_CODE, "2h", 1, 4)
    return case(edit(path, lambda data: struct.pack_into("<f", data, QOFFSET_X, NAN)))


@bad_input("no usable spacing in a.json (JSONDecodeError")
def tiff_stack_with_a_cut_spacing_file(folder: Path) -> Arguments:
    tifffile.imwrite(folder / "a_0000.tiff", volume(5, 16, 17))
    (folder / "a.json").write_text('{"spacing": [3, 0.')
    return case(folder / "a_0000.tiff")


@bad_input("no usable spacing in a.json (KeyError")
def tiff_stack_with_a_spacing_file_of_something_else(folder: Path) -> Arguments:
    tifffile.imwrite(folder / "a_0000.tiff", volume(5, 16, 17))
    (folder / "a.json").write_text('{"voxel_size": [3, 0.5, 0.5]}')
    return case(folder / "a_0000.tiff")


@bad_input("found a spacing of (0.5, nan, 3)")
def tiff_stack_with_nan_spacing(folder: Path) -> Arguments:
    # Stock: silent in the image.
    tifffile.imwrite(folder / "a_0000.tiff", volume(5, 16, 17))
    (folder / "a.json").write_text('{"spacing": [3, NaN, 0.5]}')
    return case(folder / "a_0000.tiff")


@bad_input('found "Offset = nan 6 7" in the header')
def mha_with_nan_origin(folder: Path) -> Arguments:
    # Stock: silent. MetaIO stops at the word and the origin becomes (0, 0, 0).
    return case(itk_with(folder, "a_0000.mha", b"Offset = 5 6 7", b"Offset = nan 6 7"))


@bad_input("found an origin of (nan, 6, 7)")
def gipl_with_nan_origin(folder: Path) -> Arguments:
    # Stock: silent. The origin of a GIPL file stands at byte 204.
    path = write_itk(folder / "a_0000.gipl")
    return case(edit(path, lambda data: struct.pack_into(">d", data, 204, NAN)))


@bad_input("found singular directions (0, 0, 0, 0, 1, 0, 0, 0, 1)")
def mha_with_an_axis_without_direction(folder: Path) -> Arguments:
    identity = b"TransformMatrix = 1 0 0 0 1 0 0 0 1"
    return case(itk_with(folder, "a_0000.mha", identity, b"TransformMatrix = 0 0 0 0 1 0 0 0 1"))


@bad_input("found singular directions")
def nrrd_with_two_axes_in_one_direction(folder: Path) -> Arguments:
    return case(itk_with(folder, "a_0000.nrrd", b"(1,0,0)", b"(0,2,0)"))


# Axes and types


@bad_input("found an empty image of shape (0, 7, 8)")
def nifti_with_an_empty_axis(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK takes the length 0 for 1.
    return case(edit(write_nifti(folder / "a_0000.nii.gz", volume(8, 7, 6)), set_dim(3, 8, 7, 0)))


@bad_input("found an empty image of shape (0, 7, 8)")
def nifti_with_a_negative_axis(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK takes the length -6 for 1.
    return case(edit(write_nifti(folder / "a_0000.nii.gz", volume(8, 7, 6)), set_dim(3, 8, 7, -6)))


@bad_input("found an empty image of shape (0, 7, 8)")
def mha_with_an_empty_axis(folder: Path) -> Arguments:
    # Stock: silent. The array has the shape (1, 0, 7, 8).
    return case(itk_with(folder, "a_0000.mha", b"DimSize = 8 7 6", b"DimSize = 8 7 0"))


@bad_input("a header that SimpleITK refuses")
def nrrd_with_an_empty_axis(folder: Path) -> Arguments:
    return case(itk_with(folder, "a_0000.nrrd", b"sizes: 8 7 6", b"sizes: 8 7 0"))


@bad_input("found dim[0] = 200 in the header; expected 1 to 7 axes")
def nifti_with_200_axes(folder: Path) -> Arguments:
    return case(nifti_with(folder, DIM, "h", 200))


@bad_input("found datatype 9999 in the header")
def nifti_with_an_unknown_datatype(folder: Path) -> Arguments:
    return case(nifti_with(folder, DATATYPE, "h", 9999))


@bad_input("found vox_offset = 0 in the header; expected 352 or more")
def nifti_with_voxels_in_the_header(folder: Path) -> Arguments:
    # Stock: silent. SimpleITK begins at byte 352, nibabel reads the header as voxels.
    return case(nifti_with(folder, VOX_OFFSET, "f", 0))


@bad_input("found 0 bytes of voxel data; expected 1344 bytes")
def nifti_with_voxels_behind_the_end(folder: Path) -> Arguments:
    # Stock: silent under SimpleITK: all voxels are 0.
    return case(nifti_with(folder, VOX_OFFSET, "f", 1e6))


@bad_input("found intent_code 1007 in the header, which makes SimpleITK read vectors")
def nifti_that_calls_its_numbers_vectors(folder: Path) -> Arguments:
    # Stock: silent. The array gets a fourth axis, and SimpleITKIO takes z for channels.
    return case(nifti_with(folder, INTENT_CODE, "h", 1007))


@bad_input("found a header extension of 4096 bytes where there is room for 16")
def nifti_extension_that_reaches_into_the_voxels(folder: Path) -> Arguments:
    # Stock: refuses ("failed to read extension content"). Byte 348 announces extensions, 352 the first one's length.
    path = edit(write_nifti(folder / "a_0000.nii"), lambda data: data.__setitem__(slice(352, 352), bytes(16)))
    changes = ((VOX_OFFSET, "<f", 368), (348, "<i", 1), (352, "<i", 4096))
    return case(edit(path, lambda data: [struct.pack_into(code, data, at, value) for at, code, value in changes]))


@bad_input("a header that SimpleITK refuses")
def mha_of_an_unknown_type(folder: Path) -> Arguments:
    return case(itk_with(folder, "a_0000.mha", b"MET_FLOAT", b"MET_FLOAP"))


@bad_input("a header that SimpleITK refuses")
def nrrd_of_an_unknown_type(folder: Path) -> Arguments:
    return case(itk_with(folder, "a_0000.nrrd", b"type: float", b"type: flaat"))


@bad_input("a header that SimpleITK refuses ([nrrd] nrrdIoStateDataFileIterNext: couldn't open")
def nrrd_whose_voxels_are_in_a_file_that_is_gone(folder: Path) -> Arguments:
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 3 4\nencoding: raw\nendian: little\n"
    (folder / "a_0000.nrrd").write_text(header + "data file: elsewhere.raw\n\n")
    return case(folder / "a_0000.nrrd")


@bad_input("voxel data that SimpleITK cannot read (Reason: No such file or directory)")
def mha_whose_voxels_are_in_a_file_that_is_gone(folder: Path) -> Arguments:
    return case(itk_with(folder, "a_0000.mha", b"ElementDataFile = LOCAL", b"ElementDataFile = a.raw"))


@bad_input("found 2 numbers per voxel")
def tiff_stack_of_complex_numbers(folder: Path) -> Arguments:
    # Stock: silent. The conversion to float32 drops the imaginary part.
    tifffile.imwrite(folder / "a_0000.tiff", volume(5, 16, 17).astype(np.complex64))
    return case(folder / "a_0000.tiff")


@bad_input("found a 4D image of shape (5, 16, 17, 3); expected 3D, which the reader Tiff3DIO supports")
def tiff_stack_in_colour(folder: Path) -> Arguments:
    tifffile.imwrite(folder / "a_0000.tiff", volume(5, 16, 17, 3, dtype="uint8"), photometric="rgb")
    return case(folder / "a_0000.tiff")


@bad_input("found 3 channels in 1 files, a_0000.png holds 3; expected 1 channels")
def png_with_a_palette_for_a_grey_dataset(folder: Path) -> Arguments:
    # The reader looks the colours up in the palette.
    PIL.Image.fromarray(colour_picture()).quantize(16).save(folder / "a_0000.png")
    return case(folder / "a_0000.png")


@bad_input("found a 1D image of shape (336,); expected 2D or 3D, which the reader SimpleITKIO supports")
def nifti_of_one_axis(folder: Path) -> Arguments:
    return case(write_nifti(folder / "a_0000.nii.gz", volume(336)))


@bad_input("found a 5D image of shape (4, 5, 6)")
def nifti_of_five_axes(folder: Path) -> Arguments:
    return case(write_nifti(folder / "a_0000.nii.gz", volume(6, 5, 4, 2, 3)), channels=6)


@bad_input("found a 4D image of shape (4, 5, 6); expected 2D or 3D, which the reader SimpleITKIO supports")
def nifti_of_four_axes_that_hold_the_channels(folder: Path) -> Arguments:
    # Stock: reads it, runs every member, and fails with a bare AssertionError when it writes the segmentation.
    return case(write_nifti(folder / "a_0000.nii.gz", volume(6, 5, 4, 2)), channels=2)


@bad_input("found a 4D image of shape (4, 5, 6); expected 2D or 3D, which the reader SimpleITKIO supports")
def mha_of_four_axes_that_hold_the_channels(folder: Path) -> Arguments:
    return case(write_itk(folder / "a_0000.mha", volume(2, 4, 5, 6)), channels=2)


@bad_input("Save each channel as a file of its own, CASE_0000, CASE_0001 and so on")
def nrrd_of_four_axes_with_one_volume(folder: Path) -> Arguments:
    return case(write_itk(folder / "a_0000.nrrd", volume(1, 4, 5, 6)), channels=1)


@bad_input("found a 4D image of shape (4, 5, 6); expected 3D, which the reader NibabelIO supports")
def nifti_of_four_axes_for_nibabel(folder: Path) -> Arguments:
    path = write_nifti(folder / "a_0000.nii.gz", volume(6, 5, 4, 2))
    return case(path, channels=2, reader="NibabelIO")


@bad_input("found a 2D image of shape (7, 6); expected 3D, which the reader NibabelIO supports")
def nifti_picture_for_nibabel(folder: Path) -> Arguments:
    return case(write_nifti(folder / "a_0000.nii", volume(6, 7)))


@bad_input("found a 2D image of shape (7, 6); expected 3D, which the reader SimpleITKIOWithReorient supports")
def nifti_picture_for_reorientation(folder: Path) -> Arguments:
    return case(write_nifti(folder / "a_0000.nii.gz", volume(6, 7)), reader="SimpleITKIOWithReorient")


@bad_input("found a 2D image of shape (16, 17); expected 3D, which the reader Tiff3DIO supports")
def tiff_picture_for_the_stack_reader(folder: Path) -> Arguments:
    tifffile.imwrite(folder / "a_0000.tiff", grey_picture())
    return case(folder / "a_0000.tiff")


@bad_input("found a 3D image of shape (5, 16, 17); expected 2D, which the reader NaturalImage2DIO supports")
def tiff_stack_for_the_picture_reader(folder: Path) -> Arguments:
    tifffile.imwrite(folder / "a_0000.tif", volume(5, 16, 17))
    return case(folder / "a_0000.tif", reader="NaturalImage2DIO")


@bad_input("found a 3D image of shape (16, 17, 2); expected 2D, which the reader NaturalImage2DIO supports")
def png_of_grey_and_alpha(folder: Path) -> Arguments:
    skimage.io.imsave(folder / "a_0000.png", colour_picture(2), check_contrast=False)
    return case(folder / "a_0000.png")


@bad_input("found 3 numbers per voxel")
def nifti_with_coloured_voxels(folder: Path) -> Arguments:
    # Stock: silent. SimpleITKIO takes the z axis for channels and the colours for x.
    colours = np.zeros((6, 7, 8), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    return case(write_nifti(folder / "a_0000.nii.gz", colours))


@bad_input("found 2 numbers per voxel")
def nifti_with_complex_voxels(folder: Path) -> Arguments:
    # Stock: silent. The conversion to float32 drops the imaginary part.
    return case(write_nifti(folder / "a_0000.nii.gz", volume().astype(np.complex64)))


@bad_input("found 3 numbers per voxel")
def nrrd_with_vectors(folder: Path) -> Arguments:
    # Stock: silent. SimpleITKIO takes the z axis for channels and the components for x.
    return case(write_itk(folder / "a_0000.nrrd", volume(4, 5, 6, 3), vector=True), channels=3)


@bad_input("found 3 numbers per voxel")
def mha_picture_in_colour(folder: Path) -> Arguments:
    # Stock: silent. SimpleITKIO takes the (y, x, colour) array for a volume with the spacing of a picture.
    return case(write_itk(folder / "a_0000.mha", volume(5, 6, 3), vector=True))


@bad_input("a header that SimpleITK refuses")
def nifti_2_for_simpleitk(folder: Path) -> Arguments:
    # Stock: refuses.
    return case(*nifti_2(folder))


# Channels


@bad_input("found 2 channels in 2 files; expected 3 channels. Add a_0001.nii.gz.")
def channel_is_missing(folder: Path) -> Arguments:
    # Stock: silent here, and the network fails later on the number of its input channels.
    return case(write_nifti(folder / "a_0000.nii.gz"), write_nifti(folder / "a_0002.nii.gz"), channels=3)


@bad_input("case: found 0 channels in 0 files; expected 1 channels")
def case_without_files(folder: Path) -> Arguments:
    return {"files": [], "file_ending": ".nii.gz", "channels": 1}


@bad_input("found 2 channels in 2 files; expected 1 channels")
def channel_too_many(folder: Path) -> Arguments:
    # Stock: silent here, and the network fails later on the number of its input channels.
    return case(write_nifti(folder / "a_0000.nii.gz"), write_nifti(folder / "a_0001.nii.gz"), channels=1)


@bad_input("found the channel numbers _0001, _0000; expected _0000, _0001 in this order")
def channels_out_of_order(folder: Path) -> Arguments:
    # Stock: silent. The network gets its inputs swapped.
    return case(write_nifti(folder / "a_0001.nii.gz"), write_nifti(folder / "a_0000.nii.gz"))


@bad_input("found 3 channels in 1 files, a_0000.png holds 3; expected 1 channels")
def png_in_colour_for_a_grey_dataset(folder: Path) -> Arguments:
    # Stock: silent here, and the network fails later on the number of its input channels.
    skimage.io.imsave(folder / "a_0000.png", colour_picture(), check_contrast=False)
    return case(folder / "a_0000.png")


@bad_input("found 4 channels in 1 files, a_0000.png holds 4; expected 3 channels")
def png_with_alpha_for_a_colour_dataset(folder: Path) -> Arguments:
    # Stock: silent here, and the network fails later on the number of its input channels.
    skimage.io.imsave(folder / "a_0000.png", colour_picture(4), check_contrast=False)
    return case(folder / "a_0000.png", channels=3)


@bad_input("found 2 channels in 1 files, a_0000.nrrd holds 2; expected 3 channels")
def nrrd_4d_with_too_few_channels(folder: Path) -> Arguments:
    # Stock: silent here, and the network fails later on the number of its input channels.
    return case(write_itk(folder / "a_0000.nrrd", volume(2, 4, 5, 6)), channels=3)


@bad_input("a_0001.png: found 1 channels in the file; expected 3, as in a_0000.png")
def colour_and_grey_in_one_case(folder: Path) -> Arguments:
    skimage.io.imsave(folder / "a_0000.png", colour_picture(), check_contrast=False)
    skimage.io.imsave(folder / "a_0001.png", grey_picture(), check_contrast=False)
    return case(folder / "a_0000.png", folder / "a_0001.png", channels=4)


@bad_input("a_0001.nii.gz: found the shape (5, 7, 6); expected (8, 7, 6), as in a_0000.nii.gz")
def channels_of_different_shape(folder: Path) -> Arguments:
    # Stock: refuses with a bare RuntimeError. (x, y, z) in the file is (z, y, x) in the reader.
    first = write_nifti(folder / "a_0000.nii.gz", volume(6, 7, 8))
    return case(first, write_nifti(folder / "a_0001.nii.gz", volume(6, 7, 5)))


@bad_input("a_0001.nii.gz: found the spacing (1, 2, 3.1); expected (1, 2, 3), as in a_0000.nii.gz")
def channels_of_different_spacing(folder: Path) -> Arguments:
    # Stock: refuses with a bare RuntimeError.
    second = write_nifti(folder / "a_0001.nii.gz", affine=np.diag([1, 2, 3.1, 1]))
    return case(write_nifti(folder / "a_0000.nii.gz"), second)


@bad_input("a_0001.nii.gz: found the origin (0, 0, 4); expected (0, 0, 0), as in a_0000.nii.gz")
def channels_of_different_origin(folder: Path) -> Arguments:
    # Stock: silent but for a printed warning.
    moved = np.diag([1, 2, 3, 1.0])
    moved[2, 3] = 4
    return case(write_nifti(folder / "a_0000.nii.gz"), write_nifti(folder / "a_0001.nii.gz", affine=moved))


@bad_input("a_0001.nii: found the directions (-1, 0, 0, 0, 1, 0, 0, 0, 1)")
def channels_of_different_direction_for_nibabel(folder: Path) -> Arguments:
    # Stock: silent but for a printed warning.
    mirrored = np.diag([-1, 2, 3, 1.0])
    return case(write_nifti(folder / "a_0000.nii"), write_nifti(folder / "a_0001.nii", affine=mirrored))


@bad_input("a_0001.mha: found the directions (0.999848, 0.0174524, 0, -0.0174524, 0.999848, 0, 0, 0, 1)")
def channels_turned_by_one_degree(folder: Path) -> Arguments:
    # Stock: silent but for a printed warning. cos(1 degree) = 0.999848, sin(1 degree) = 0.0174524.
    second = write_itk(folder / "a_0001.mha")
    turn = b"TransformMatrix = 0.999848 -0.0174524 0 0.0174524 0.999848 0 0 0 1"
    second.write_bytes(second.read_bytes().replace(b"TransformMatrix = 1 0 0 0 1 0 0 0 1", turn))
    return case(write_itk(folder / "a_0000.mha"), second)


# Previous stage of a cascade


@bad_input("a.nii.gz: found no such file; expected the segmentation of the previous stage under this name")
def previous_stage_is_absent(folder: Path) -> Arguments:
    return case(write_nifti(folder / "a_0000.nii.gz"), previous_stage=folder / "a.nii.gz")


@bad_input("a.nii.gz: found the shape (4, 7, 6); expected (8, 7, 6)")
def previous_stage_of_another_shape(folder: Path) -> Arguments:
    # Stock: silent here; the preprocessor refuses later, without a name.
    previous = write_nifti(folder / "a.nii.gz", np.zeros((6, 7, 4), np.uint8))
    return case(write_nifti(folder / "a_0000.nii.gz"), previous_stage=previous)


@bad_input("a.nii.gz: found the spacing (2, 2, 3); expected (1, 2, 3)")
def previous_stage_of_another_spacing(folder: Path) -> Arguments:
    # Stock: silent. Of the segmentation nnU-Net looks at the shape only.
    previous = write_nifti(folder / "a.nii.gz", np.zeros((6, 7, 8), np.uint8), np.diag([2, 2, 3, 1.0]))
    return case(write_nifti(folder / "a_0000.nii.gz"), previous_stage=previous)


@bad_input("a.nii.gz: found a compressed stream that is truncated")
def previous_stage_cut(folder: Path) -> Arguments:
    # Stock: silent under SimpleITK, zeros: what was segmented there is lost.
    previous = cut(write_nifti(folder / "a.nii.gz", volume(dtype="uint8")))
    return case(write_nifti(folder / "a_0000.nii.gz"), previous_stage=previous)


@bad_input("found the label 1.0000153 (scl_slope 3.0518e-05); expected whole numbers")
def previous_stage_with_rounded_labels(folder: Path) -> Arguments:
    # Stock: silent. Labels are cut off to integers, and one that is rounded down becomes another label.
    labels = np.zeros((6, 7, 8))
    labels[2:4], labels[4:] = 1, 2
    image = nibabel.Nifti1Image(labels, np.diag([1, 2, 3, 1.0]))
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, folder / "a.nii.gz")
    return case(write_nifti(folder / "a_0000.nii.gz"), previous_stage=folder / "a.nii.gz")


@bad_input("a segmentation of the previous stage with 3 channels")
def previous_stage_in_colour(folder: Path) -> Arguments:
    # Stock: silent here.
    skimage.io.imsave(folder / "a_0000.png", grey_picture(), check_contrast=False)
    skimage.io.imsave(folder / "a.png", colour_picture(), check_contrast=False)
    return case(folder / "a_0000.png", previous_stage=folder / "a.png")


@pytest.mark.parametrize(("make", "message"), BAD_INPUTS)
def test_bad_input_is_found(make: Callable[[Path], Arguments], message: str, tmp_path: Path) -> None:
    findings = check_case(**make(tmp_path))
    assert [text for text in map(str, findings) if message in text], [str(finding) for finding in findings]


# ---- good inputs --------------------------------------------------------------------------------------------------


def good_nifti(folder: Path, name: str = "a_0000.nii.gz", array: np.ndarray | None = None) -> list[Path]:
    return [write_nifti(folder / name, array)]


def good_nifti_of_two_members(folder: Path) -> list[Path]:
    data = write_nifti(folder / "a_0000.nii").read_bytes()
    (folder / "a_0000.nii.gz").write_bytes(
        gzip.compress(data[:500]) + gzip.compress(data[500:])
    )  # as bgzip and cat do
    return [folder / "a_0000.nii.gz"]


def good_nifti_of_big_endian(folder: Path) -> list[Path]:
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.dtype(">i2"))
    image = nibabel.Nifti1Image(volume(dtype="int16"), np.diag([1, 2, 3, 1.0]), header)
    nibabel.save(image, folder / "a_0000.nii.gz")
    return [folder / "a_0000.nii.gz"]


def nifti_2(folder: Path) -> list[Path]:
    nibabel.save(nibabel.Nifti2Image(volume(), np.diag([1, 2, 3, 1.0])), folder / "a_0000.nii.gz")
    return [folder / "a_0000.nii.gz"]


def good_nifti_with_slope_0(folder: Path) -> list[Path]:
    return [nifti_with(folder, SCL_SLOPE, "2f", 0, NAN)]  # slope 0: not scaled, whatever the intercept


def good_nifti_scaled(folder: Path) -> list[Path]:
    path = write_nifti(folder / "a_0000.nii.gz", volume(dtype="int16"))
    return [edit(path, lambda data: struct.pack_into("<2f", data, SCL_SLOPE, 0.1, -1024))]


def good_nifti_with_qform_only(folder: Path) -> list[Path]:
    path = nifti_with(folder, QFORM_CODE, "2h", 1, 0)
    return [edit(path, lambda data: struct.pack_into("<f", data, PIXDIM, 0))]  # qfac 0 counts as 1


def good_nifti_with_rounded_qform(folder: Path) -> list[Path]:
    turn = np.radians(30)  # the quaternion is stored in 32 bits, and spacing and position as well
    turned = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turned * (0.48828125, 0.48828125, 3.3), (-123.456, 77.7, 1000.1)
    return [nifti_with_two_positions(folder, affine, affine, (1, 1))]


def good_nifti_of_one_place(folder: Path) -> list[Path]:
    return [nifti_with_two_positions(folder, SFORM, np.diag([1.0, 1, 5, 1]), (2, 0))]  # code 0: there is no qform


def plain_nifti_under_the_name_nii_gz(folder: Path) -> list[Path]:
    return [write_nifti(folder / "a_0000.nii").rename(folder / "a_0000.nii.gz")]


def good_itk(folder: Path, name: str, array: np.ndarray | None = None, compress: bool = False) -> list[Path]:
    return [write_itk(folder / name, array, compress)]


def good_mha_of_big_endian(folder: Path) -> list[Path]:
    path = itk_with(folder, "a_0000.mha", b"ByteOrderMSB = False", b"ByteOrderMSB = True")
    header, voxels = path.read_bytes()[:-1344], path.read_bytes()[-1344:]
    path.write_bytes(header + np.frombuffer(voxels, "<f4").astype(">f4").tobytes())
    return [path]


def good_nrrd_as_text(folder: Path) -> list[Path]:
    numbers = " ".join(str(number) for number in range(24))
    text = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 2 3 4\nencoding: ascii\nspacings: 1 1 2\n\n{numbers}\n"
    (folder / "a_0000.nrrd").write_text(text)
    return [folder / "a_0000.nrrd"]


def good_mirrored_nrrd(folder: Path) -> list[Path]:
    return [itk_with(folder, "a_0000.nrrd", b"(0,0,3)", b"(0,0,-3)")]  # a direction, not a negative spacing


def good_picture(folder: Path, name: str, array: np.ndarray) -> list[Path]:
    skimage.io.imsave(folder / name, array, check_contrast=False)
    return [folder / name]


def good_opaque_png(folder: Path) -> list[Path]:
    array = colour_picture(4)
    array[..., 3] = 255  # an alpha channel without contrast is no blank image
    return good_picture(folder, "a_0000.png", array)


def good_png_with_a_palette(folder: Path) -> list[Path]:
    PIL.Image.fromarray(colour_picture()).quantize(16).save(folder / "a_0000.png")
    return [folder / "a_0000.png"]


def good_nifti_gz_beside_its_own_copy(folder: Path) -> list[Path]:
    path = write_nifti(folder / "a_0000.nii.gz")
    (folder / "a_0000.nii").write_bytes(gzip.decompress(path.read_bytes()))
    return [path]


def good_image_with_a_blank_channel(folder: Path) -> list[Path]:
    # a sequence that was not taken: stock predicts such a case, and datasets hold them
    blank = np.zeros((6, 7, 8), np.float32)
    return [write_nifti(folder / "a_0000.nii.gz", volume()), write_nifti(folder / "a_0001.nii.gz", blank)]


def good_stack(folder: Path, name: str, **options: Any) -> list[Path]:
    tifffile.imwrite(folder / name, volume(5, 32, 17, dtype="uint16"), **options)
    (folder / "a.json").write_text(json.dumps({"spacing": [3, 0.5, 0.5]}))
    return [folder / name]


GOOD_INPUTS = {
    "nii.gz": (good_nifti, SimpleITKIO, 1),
    "nii.gz, nibabel": (good_nifti, NibabelIO, 1),
    "nii.gz, SimpleITK reorients": (good_nifti, SimpleITKIOWithReorient, 1),
    "nii.gz, a blank channel": (good_image_with_a_blank_channel, SimpleITKIO, 2),
    "nii": (lambda folder: good_nifti(folder, "a_0000.nii"), NibabelIO, 1),
    "nii, nibabel reorients": (lambda folder: good_nifti(folder, "a_0000.nii"), NibabelIOWithReorient, 1),
    "nii.gz, int16": (lambda folder: good_nifti(folder, array=volume(dtype="int16")), SimpleITKIO, 1),
    "nii.gz, scaled": (good_nifti_scaled, SimpleITKIO, 1),
    "nii.gz, slope 0": (good_nifti_with_slope_0, SimpleITKIO, 1),
    "nii.gz, 2D": (lambda folder: good_nifti(folder, array=volume(6, 7)), SimpleITKIO, 1),
    "nii.gz, one slice": (lambda folder: good_nifti(folder, array=volume(6, 7, 1)), SimpleITKIO, 1),
    "nii.gz, 4D of one volume": (lambda folder: good_nifti(folder, array=volume(6, 5, 4, 1)), SimpleITKIO, 1),
    "nii.gz, two gzip members": (good_nifti_of_two_members, SimpleITKIO, 1),
    "nii.gz, big endian": (good_nifti_of_big_endian, SimpleITKIO, 1),
    "nii.gz, NIfTI-2": (nifti_2, NibabelIO, 1),
    "nii.gz, qform only": (good_nifti_with_qform_only, SimpleITKIO, 1),
    "nii.gz, sform and qform": (good_nifti_with_rounded_qform, SimpleITKIO, 1),
    "nii.gz, sform only": (good_nifti_of_one_place, SimpleITKIO, 1),
    "nii.gz, micrometres": (lambda folder: [nifti_in("micron", folder / "a_0000.nii.gz")], SimpleITKIO, 1),
    "nii, millimetres": (lambda folder: [nifti_in("mm", folder / "a_0000.nii")], NibabelIO, 1),
    "nrrd, millimetres": (
        lambda folder: [itk_with(folder, "a_0000.nrrd", b"endian:", b'space units: "mm" "mm" "mm"\nendian:')],
        SimpleITKIO,
        1,
    ),
    "nii.gz, beside its own .nii": (good_nifti_gz_beside_its_own_copy, SimpleITKIO, 1),
    "nii.gz, not compressed": (plain_nifti_under_the_name_nii_gz, SimpleITKIO, 1),
    "mha": (lambda folder: good_itk(folder, "a_0000.mha"), SimpleITKIO, 1),
    "mha, compressed": (lambda folder: good_itk(folder, "a_0000.mha", compress=True), SimpleITKIO, 1),
    "mha, 2D": (lambda folder: good_itk(folder, "a_0000.mha", volume(6, 7)), SimpleITKIO, 1),
    "mha, big endian": (good_mha_of_big_endian, SimpleITKIO, 1),
    "nrrd": (lambda folder: good_itk(folder, "a_0000.nrrd"), SimpleITKIO, 1),
    "nrrd, uint8": (lambda folder: good_itk(folder, "a_0000.nrrd", volume(dtype="uint8")), SimpleITKIO, 1),
    "nrrd, gzip": (lambda folder: good_itk(folder, "a_0000.nrrd", compress=True), SimpleITKIO, 1),
    "nrrd, text": (good_nrrd_as_text, SimpleITKIO, 1),
    "nrrd, mirrored": (good_mirrored_nrrd, SimpleITKIO, 1),
    "gipl": (lambda folder: good_itk(folder, "a_0000.gipl"), SimpleITKIO, 1),
    "png, grey": (lambda folder: good_picture(folder, "a_0000.png", grey_picture()), NaturalImage2DIO, 1),
    "png, colour": (lambda folder: good_picture(folder, "a_0000.png", colour_picture()), NaturalImage2DIO, 3),
    "png, 16 bit": (
        lambda folder: good_picture(folder, "a_0000.png", volume(16, 17, dtype="uint16")),
        NaturalImage2DIO,
        1,
    ),
    "png, palette": (good_png_with_a_palette, NaturalImage2DIO, 3),
    "png, opaque": (good_opaque_png, NaturalImage2DIO, 4),
    "bmp, grey": (lambda folder: good_picture(folder, "a_0000.bmp", grey_picture()), NaturalImage2DIO, 1),
    "bmp, colour": (lambda folder: good_picture(folder, "a_0000.bmp", colour_picture()), NaturalImage2DIO, 3),
    "tif, grey": (lambda folder: good_picture(folder, "a_0000.tif", grey_picture()), NaturalImage2DIO, 1),
    "tif, colour": (lambda folder: good_picture(folder, "a_0000.tif", colour_picture()), NaturalImage2DIO, 3),
    "tif, stack": (lambda folder: good_stack(folder, "a_0000.tif"), Tiff3DIO, 1),
    "tiff, stack": (lambda folder: good_stack(folder, "a_0000.tiff"), Tiff3DIO, 1),
    "tiff, stack, zlib": (lambda folder: good_stack(folder, "a_0000.tiff", compression="zlib"), Tiff3DIO, 1),
    "tiff, stack, BigTIFF": (lambda folder: good_stack(folder, "a_0000.tiff", bigtiff=True), Tiff3DIO, 1),
    "tiff, stack, big endian": (lambda folder: good_stack(folder, "a_0000.tiff", byteorder=">"), Tiff3DIO, 1),
    "tiff, stack, ImageJ": (lambda folder: good_stack(folder, "a_0000.tiff", imagej=True), Tiff3DIO, 1),
}


@pytest.mark.parametrize(("make", "stock_reader", "channels"), GOOD_INPUTS.values(), ids=GOOD_INPUTS.keys())
def test_good_input_gives_no_finding_and_the_stock_reader_reads_it(
    make: Callable[[Path], list[Path]], stock_reader: type, channels: int, tmp_path: Path
) -> None:
    files = make(tmp_path)
    assert check_case(**case(*files, channels=channels, reader=stock_reader.__name__)) == []
    data, _ = stock_reader().read_images([str(file) for file in files])
    assert len(data) == channels


@pytest.mark.parametrize("name", ["tif, grey", "tif, colour", "tif, stack", "tiff, stack", "nii", "mha"])
def test_without_the_name_of_a_reader_the_one_that_nnunet_takes_for_the_ending_is_meant(
    name: str, tmp_path: Path
) -> None:
    make, _, channels = GOOD_INPUTS[name]
    assert check_case(**case(*make(tmp_path), channels=channels)) == []


def test_good_case_of_two_channels_and_a_previous_stage_without_foreground(tmp_path: Path) -> None:
    files = [write_nifti(tmp_path / "a_0000.nii.gz"), write_nifti(tmp_path / "a_0001.nii.gz", volume() + 1)]
    previous = write_nifti(tmp_path / "a.nii.gz", np.zeros((6, 7, 8), np.uint8))
    require_good_case(files, file_ending=".nii.gz", channels=2, previous_stage=previous)


def test_paths_may_be_strings_and_names_need_no_channel_number(tmp_path: Path) -> None:
    files = [str(write_nifti(tmp_path / "t1.nii.gz")), str(write_nifti(tmp_path / "t2.nii.gz"))]
    assert check_case(files, file_ending=".nii.gz", channels=2) == []


def test_rounding_of_32_bit_headers_is_no_difference(tmp_path: Path) -> None:
    # 1e-4 mm of 1 mm voxels is a tenth of the tolerance for the origin; 2e-6 of a spacing of 1 is within rtol 1e-5.
    rounded = np.diag([1 + 2e-6, 2, 3, 1.0])
    rounded[0, 3] = 1e-4
    files = [write_nifti(tmp_path / "a_0000.nii.gz"), write_nifti(tmp_path / "a_0001.nii.gz", affine=rounded)]
    assert check_case(files, file_ending=".nii.gz", channels=2) == []


def test_the_files_of_a_format_that_nnunet_does_not_know_are_only_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a_0000.xyz").write_bytes(b"for a reader of one's own")
    assert check_case([tmp_path / "a_0000.xyz"], file_ending=".xyz", channels=3) == []
    (finding,) = check_case([tmp_path / "b_0000.xyz"], file_ending=".xyz", channels=3)
    assert finding.found == "no such file"


# ---- what comes of it ---------------------------------------------------------------------------------------------


def test_all_findings_of_a_case_come_together(tmp_path: Path) -> None:
    array = volume()
    array[0, 0, 0] = NAN
    first = edit(write_nifti(tmp_path / "a_0000.nii.gz", array), lambda d: struct.pack_into("<f", d, PIXDIM + 4, 0))
    second = cut(write_nifti(tmp_path / "a_0001.nii.gz"))
    with pytest.raises(BadInputError) as error:
        require_good_case([first, second], file_ending=".nii.gz", channels=3)
    spacing, voxels, stream, channels = str(error.value).splitlines()
    assert "spacing of (0, 2, 3)" in spacing and str(first) in spacing
    assert "1 NaN" in voxels and str(first) in voxels
    assert "truncated" in stream and str(second) in stream
    assert "Add a_0002.nii.gz." in channels


def test_a_damaged_colour_picture_is_not_also_called_a_missing_channel(tmp_path: Path) -> None:
    skimage.io.imsave(tmp_path / "a_0000.png", colour_picture(), check_contrast=False)
    (finding,) = check_case(**case(cut(tmp_path / "a_0000.png"), channels=3))
    assert "truncated" in finding.found


def test_a_finding_reads_as_one_sentence_and_a_remedy() -> None:
    finding = Finding(Path("a_0000.nii.gz"), "2 NaN", "finite numbers", "Replace them.")
    assert str(finding) == "a_0000.nii.gz: found 2 NaN; expected finite numbers. Replace them."


def test_the_error_survives_the_way_out_of_a_worker_process() -> None:
    error = BadInputError([Finding(None, "nothing", "an image", "Give one.")])
    copy = pickle.loads(pickle.dumps(error))
    assert copy.findings == error.findings and str(copy) == str(error)


def test_the_table_names_each_check_once_and_says_what_it_looks_for() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.looks_for for check in CHECKS)


@pytest.mark.parametrize("make", [nifti_gz_bomb, mha_bomb, nrrd_bomb])
def test_a_bomb_takes_no_memory(make: Callable[[Path], Arguments], tmp_path: Path) -> None:
    bomb = make(tmp_path)
    tracemalloc.start()
    check_case(**bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < BOMB_BYTES / 16


@pytest.mark.skipif(available_memory_bytes() is None, reason="the system does not report its memory")
def test_voxels_that_no_memory_holds_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = edit(write_nifti(tmp_path / "a_0000.nii.gz"), set_dim(3, 30000, 30000, 30000))
    (finding,) = check_case([path], file_ending=".nii.gz", channels=1)
    # 2.7e13 voxels of 4 bytes as stored and 4 as nnU-Net reads them, in GiB
    assert "27000000000000 voxels, which need 201165.7 GiB" in finding.found
    assert "available memory" in finding.expected


def test_a_stream_of_many_gzip_members_is_put_together(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a_0000.nii.gz")
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(b"".join(gzip.compress(data[start : start + 1]) for start in range(len(data))))
    assert check_case([path], file_ending=".nii.gz", channels=1) == []


def test_each_file_is_decompressed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = []
    monkeypatch.setattr(zlib, "decompressobj", count_calls(zlib.decompressobj, streams))
    path = write_nifti(tmp_path / "a_0000.nii.gz")
    assert check_case([path], file_ending=".nii.gz", channels=1) == []
    assert len(streams) == 1


def count_calls(function: Callable[..., Any], calls: list[Any]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return function(*args, **kwargs)

    return counted
