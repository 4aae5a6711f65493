"""MetaImage (.mha), NRRD (.nrrd) and GIPL (.gipl) files.

SimpleITK keeps NaN and Inf in these formats, but does not report all damage: it reads a truncated .gipl file
and a compressed .mha file that fails its checksum without an error. Therefore the voxel data is read from the
file; only the rarer encodings (text, separate data file) are left to SimpleITK.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_ext.input_checks.byte_streams import COPY_AGAIN, inflate, inflated_pieces
from nnunet_ext.input_checks.findings import UnreadableFile
from nnunet_ext.input_checks.itk_header import itk_message, read_itk_header
from nnunet_ext.input_checks.stored_image import StoredImage
from nnunet_ext.input_checks.text_headers import meta_fields, nrrd_fields
from nnunet_ext.input_checks.units import refuse_ignored_meta_unit, refuse_ignored_nrrd_unit

_GIPL_HEADER_BYTES = 256
_META_POSITIONS = ("Offset", "Position", "Origin")  # three names for one thing, as are those of the directions
_META_DIRECTIONS = ("TransformMatrix", "Rotation", "Orientation")
_META_GEOMETRY = ("ElementSpacing", *_META_POSITIONS, *_META_DIRECTIONS)
_DTYPES = {
    sitk.sitkUInt8: "u1",
    sitk.sitkInt8: "i1",
    sitk.sitkUInt16: "u2",
    sitk.sitkInt16: "i2",
    sitk.sitkUInt32: "u4",
    sitk.sitkInt32: "i4",
    sitk.sitkUInt64: "u8",
    sitk.sitkInt64: "i8",
    sitk.sitkFloat32: "f4",
    sitk.sitkFloat64: "f8",
}
_COMPLEX = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)


@dataclass(frozen=True)
class _VoxelData:
    """Where and how a file stores its voxels."""

    offset: int
    compressed: bool
    big_endian: bool


def read_itk_format(image: StoredImage) -> None:
    """Fills `image` from its .mha, .nrrd or .gipl file.

    Raises:
        UnreadableFile: The header or the voxel data cannot be read.
        OSError: The file cannot be opened.
    """
    place = _VOXEL_DATA[image.path.suffix.lower()](image.path)
    header = read_itk_header(image.path)
    header.give_geometry_to(image)
    image.dimensions = len(header.size)
    image.shape = tuple(reversed(header.size[:3]))
    image.channels = math.prod(header.size[3:])
    image.components = 2 if header.pixel_id in _COMPLEX else header.components
    if image.components > 1:
        return
    if place is None or header.pixel_id not in _DTYPES:
        _take_voxels_through_itk(image)
        return
    dtype = np.dtype(_DTYPES[header.pixel_id]).newbyteorder(">" if place.big_endian else "<")
    image.require_memory(dtype)
    with image.path.open("rb") as file:
        file.seek(place.offset)
        specified = image.channels * math.prod(image.shape) * dtype.itemsize
        data = inflate(inflated_pieces(file), specified) if place.compressed else file.read()
    image.take_voxels(data, 0, dtype)


def _take_voxels_through_itk(image: StoredImage) -> None:
    try:
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(image.path)))
    except RuntimeError as error:
        found = f"voxel data that SimpleITK cannot read ({itk_message(error)})"
        raise UnreadableFile(found, "complete voxel data", COPY_AGAIN) from error
    image.values = values.reshape(image.channels, *image.shape)  # (channels, [z,] y, x)


def _meta_voxel_data(path: Path) -> _VoxelData | None:
    fields, offset = meta_fields(path)
    _refuse_numbers_that_itk_replaces(fields)
    _refuse_two_positions(fields)
    refuse_ignored_meta_unit(fields)
    is_plain = fields.get("ElementDataFile", "").upper() == "LOCAL" and "HeaderSize" not in fields
    if not (is_plain and _is_true(fields.get("BinaryData", ""))):
        return None
    big_endian = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", ""))
    return _VoxelData(offset, _is_true(fields.get("CompressedData", "")), _is_true(big_endian))


def _is_true(value: str) -> bool:
    return value[:1] in ("T", "t", "1")  # as MetaIO decides


def _refuse_numbers_that_itk_replaces(fields: dict[str, str]) -> None:
    for key in _META_GEOMETRY:
        # ITK reads "nan", and any other word, as 0 and goes on.
        if key in fields and not all(_is_finite(number) for number in fields[key].split()):
            remedy = "Write the geometry of the image again from its source."
            raise UnreadableFile(f'"{key} = {fields[key]}" in the header', "finite numbers", remedy)


def _refuse_two_positions(fields: dict[str, str]) -> None:
    for names in (_META_POSITIONS, _META_DIRECTIONS):
        given = {name: [float(number) for number in fields[name].split()] for name in names if name in fields}
        if any(numbers != next(iter(given.values())) for numbers in given.values()):
            found = " and ".join(f'"{name} = {fields[name]}"' for name in given) + " in the header"
            raise UnreadableFile(found, "one position", "Find out which is correct, and remove the other one.")


def _is_finite(number: str) -> bool:
    try:
        return math.isfinite(float(number))
    except ValueError:
        return False


def _nrrd_voxel_data(path: Path) -> _VoxelData | None:
    fields, offset = nrrd_fields(path)
    refuse_ignored_nrrd_unit(fields)
    encoding = fields.get("encoding")
    if encoding not in ("raw", "gzip", "gz") or {"datafile", "lineskip", "byteskip"} & fields.keys():
        return None
    return _VoxelData(offset, encoding != "raw", fields.get("endian") == "big")


def _gipl_voxel_data(path: Path) -> _VoxelData:
    return _VoxelData(_GIPL_HEADER_BYTES, compressed=False, big_endian=True)


_VOXEL_DATA: dict[str, Callable[[Path], _VoxelData | None]] = {
    ".mha": _meta_voxel_data,
    ".nrrd": _nrrd_voxel_data,
    ".gipl": _gipl_voxel_data,
}
