"""NIfTI files, checked without the repairs that nibabel and SimpleITK make while reading.

Both readers set a spacing of zero to 1. SimpleITK also turns NaN and Inf into 0, fills the missing part of a
truncated file with zeros, and treats an axis of length zero as one of length 1. Therefore header and voxels are read
from the bytes.
"""

from __future__ import annotations

import itertools
import math
from typing import BinaryIO

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from nnunet_ext.input_checks.byte_streams import COPY_AGAIN, GZIP_MAGIC, inflate, inflate_start, inflated_pieces
from nnunet_ext.input_checks.findings import UnreadableFile
from nnunet_ext.input_checks.itk_header import read_itk_header
from nnunet_ext.input_checks.stored_image import StoredImage, in_words
from nnunet_ext.input_checks.units import refuse_ignored_nifti_unit

_HEADER_CLASSES = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
_FIRST_VOXEL_BYTE = {348: 352, 540: 544}
_LONGEST_HEADER = max(_HEADER_CLASSES)
_MAGIC = {348: (344, b"n+1\x00"), 540: (4, b"n+2\x00\r\n\x1a\n")}
_EXTENSION_HEADER_BYTES = 8
_LEAST_EXTENSION_BYTES = 16
_POSITION_CODES = range(6)
_SMALLEST_SLOPE_OF_ITK = 2.0**-52
_SPACING_TOLERANCE = 0.01
_POSITION_TOLERANCE_VOXELS = 0.1  # of 32-bit quaternions far less
_RIGHT_ANGLE_TOLERANCE = 1e-3
_CODES_OF_THE_SCANNER = (1, 2)  # the others are template spaces, to which a brain may be warped
_REPAIR_SCALING = "Write the true scaling into the header: scl_slope 1 and scl_inter 0 if there is none."
_REPAIR_HEADER = "Write the header again with the tool that made the file, or convert the image again."


def read_nifti(image: StoredImage) -> None:
    """Fills `image` from its .nii or .nii.gz file.

    Raises:
        UnreadableFile: The stream is damaged or the header is not a NIfTI header.
        OSError: The file cannot be opened.
    """
    with image.path.open("rb") as file:
        pieces = inflated_pieces(file) if _is_gzip(image, file) else None
        start = file.read() if pieces is None else inflate_start(pieces, _LONGEST_HEADER)
        header = _parse_header(start)
        dtype, first_byte = _voxel_type(header), _first_byte(header)
        _take_axes(image, header)
        image.require_memory(dtype)
        specified = first_byte + image.channels * math.prod(image.shape) * dtype.itemsize
        data = start if pieces is None else inflate(pieces, specified, start)
    _refuse_voxels_of_another_file(image, data)
    _refuse_broken_extensions(image, header, data)
    if dtype.fields is not None:
        image.components = len(dtype.fields)
    elif dtype.kind == "c":
        image.components = 2
    image.slope, image.intercept = _scaling(image, header)
    image.take_voxels(data, first_byte, dtype)
    _take_geometry(image, header)


def _is_gzip(image: StoredImage, file: BinaryIO) -> bool:
    is_gzip = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    file.seek(0)
    named_gzip = image.path.name.lower().endswith(".gz")
    # SimpleITK reads a plain file under the name .nii.gz correctly. nibabel reads neither mismatch.
    if is_gzip != named_gzip and not (named_gzip and image.reader.startswith("SimpleITK")):
        found = "gzip-compressed content" if is_gzip else "content that is not gzip-compressed"
        expected = "a plain file under the name .nii" if is_gzip else "gzip under the name .nii.gz"
        raise UnreadableFile(found, expected, "Rename the file, or compress or decompress it.")
    return is_gzip


def _parse_header(data: bytes) -> nibabel.Nifti1Header:
    # The header's first number, its length, gives the byte order. nibabel uses dim[0], which may be what is wrong.
    little, big = int.from_bytes(data[:4], "little"), int.from_bytes(data[:4], "big")
    size, order = (little, "<") if little in _HEADER_CLASSES else (big, ">")
    position, magic = _MAGIC.get(size, (0, b"none"))
    if size not in _HEADER_CLASSES or len(data) < size or data[position : position + len(magic)] != magic:
        # Without the magic number SimpleITK treats the file as an Analyze file, which has no orientation.
        found = f"{len(data)} bytes that do not begin with a NIfTI header"
        raise UnreadableFile(found, "a NIfTI-1 or NIfTI-2 header with its magic number", COPY_AGAIN)
    header = _HEADER_CLASSES[size](data[:size], endianness=order, check=False)
    if not 1 <= int(header["dim"][0]) <= 7:
        raise UnreadableFile(f"dim[0] = {int(header['dim'][0])} in the header", "1 to 7 axes", _REPAIR_HEADER)
    return header


def _voxel_type(header: nibabel.Nifti1Header) -> np.dtype:
    try:
        return header.get_data_dtype()
    except (KeyError, HeaderDataError) as error:
        code = int(header["datatype"])
        raise UnreadableFile(f"datatype {code} in the header", "a NIfTI datatype", _REPAIR_HEADER) from error


def _first_byte(header: nibabel.Nifti1Header) -> int:
    first, least = float(header["vox_offset"]), _FIRST_VOXEL_BYTE[int(header["sizeof_hdr"])]
    if not (math.isfinite(first) and first >= least):  # below `least` nibabel and SimpleITK disagree
        raise UnreadableFile(f"vox_offset = {first:g} in the header", f"{least} or more", _REPAIR_HEADER)
    return int(first)


def _refuse_voxels_of_another_file(image: StoredImage, data: bytes | bytearray) -> None:
    # For CASE.nii.gz beside a CASE.nii SimpleITK reads its header, but the voxels of the other file.
    other = image.path.with_suffix("")
    if image.reader.startswith("SimpleITK") and image.path.name.endswith(".nii.gz") and other.is_file():
        if other.read_bytes() == data:
            return
        found = f"another image under the name {other.name} beside it, from which SimpleITK would read the voxels"
        raise UnreadableFile(found, "one of the two", f"Move {other.name} to another folder, or delete it.")


def _refuse_broken_extensions(image: StoredImage, header: nibabel.Nifti1Header, data: bytes | bytearray) -> None:
    size, first_byte = int(header["sizeof_hdr"]), _first_byte(header)
    position = _FIRST_VOXEL_BYTE[size]
    if not image.reader.startswith("Nibabel") or data[size : size + 1] in (b"", b"\x00"):
        return  # SimpleITK uses vox_offset only
    while first_byte - position >= _LEAST_EXTENSION_BYTES:
        length = int.from_bytes(data[position : position + 4], "little" if header.endianness == "<" else "big")
        if not _EXTENSION_HEADER_BYTES <= length <= first_byte - position:
            found = f"a header extension of {length} bytes where there is room for {first_byte - position}"
            raise UnreadableFile(found, "extensions that end before the voxels", _REPAIR_HEADER)
        position += length


def _scaling(image: StoredImage, header: nibabel.Nifti1Header) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    is_taken_for_one = image.reader.startswith("SimpleITK") and abs(slope) < _SMALLEST_SLOPE_OF_ITK
    # By the standard, slope 0 means not scaled. SimpleITK still adds the intercept, unless it is NaN or infinite.
    if is_taken_for_one and (slope != 0 or (math.isfinite(intercept) and intercept != 0)):
        found = f"scl_slope {slope:g} and scl_inter {intercept:g} in the header, for which SimpleITK uses slope 1"
        raise UnreadableFile(found, "both 0, or a slope that SimpleITK applies", _REPAIR_SCALING)
    return (1.0, 0.0) if slope == 0 else (slope, intercept)


def _take_axes(image: StoredImage, header: nibabel.Nifti1Header) -> None:
    axes = [int(length) for length in header["dim"][1 : 1 + int(header["dim"][0])]]
    if not image.reader.startswith("Nibabel"):
        while len(axes) > 3 and axes[-1] == 1:  # ITK drops them, nibabel does not
            axes.pop()
    spatial = axes[:3]
    image.dimensions = len(axes)
    image.shape = tuple(max(length, 0) for length in reversed(spatial))
    image.channels = math.prod(axes[3:])
    image.spacing_mm = tuple(float(spacing) for spacing in header["pixdim"][1 : 1 + len(spatial)])


def _take_geometry(image: StoredImage, header: nibabel.Nifti1Header) -> None:
    if not all(math.isfinite(spacing) and spacing > 0 for spacing in image.spacing_mm) or 0 in image.shape:
        return  # nothing can be computed from it, and the checks of spacing and shape report it
    _refuse_position_that_readers_disagree_on(header)
    refuse_ignored_nifti_unit(header, image.reader)
    affine = header.get_best_affine()[:3]  # (3, 4)
    columns = affine[:, : len(image.shape)]  # (3, spatial axes)
    lengths = np.linalg.norm(columns, axis=0)
    direction = columns / np.where(lengths == 0, 1, lengths)
    image.origin_mm, image.direction = tuple(affine[:, 3].tolist()), direction
    if np.isfinite(affine).all() and (lengths > 0).all():
        if image.reader.startswith("SimpleITK"):
            _take_geometry_of_itk(image, header)
        _refuse_two_spacings(header, direction, lengths)
        _refuse_two_positions(header, image.shape)


def _take_geometry_of_itk(image: StoredImage, header: nibabel.Nifti1Header) -> None:
    """The geometry that SimpleITK derives from sform, qform and units."""
    itk_header = read_itk_header(image.path)
    if itk_header.is_vector and image.components == 1:
        # the array gets one more axis, and SimpleITKIO treats z as channels
        found = f"intent_code {int(header['intent_code'])} in the header, which makes SimpleITK read vectors"
        raise UnreadableFile(found, "the intent code of an image of numbers, such as 0", _REPAIR_HEADER)
    itk_header.give_geometry_to(image)


def _refuse_two_spacings(
    header: nibabel.Nifti1Header, direction: NDArray[np.float64], lengths: NDArray[np.float64]
) -> None:
    """Both readers take the spacing from pixdim and the position from the sform, even if the two contradict."""
    is_rectangular = np.allclose(direction.T @ direction, np.eye(len(lengths)), atol=_RIGHT_ANGLE_TOLERANCE)
    if int(header["sform_code"]) not in _CODES_OF_THE_SCANNER or not is_rectangular:
        return
    by_pixdim, by_sform = header["pixdim"][1 : 1 + len(lengths)].tolist(), lengths.tolist()
    if not np.allclose(by_pixdim, by_sform, rtol=_SPACING_TOLERANCE, atol=0):
        found = f"a spacing of {in_words(by_pixdim)} by pixdim and of {in_words(by_sform)} by the sform in the header"
        raise UnreadableFile(found, "the same spacing in both", "Find out which is correct, and write it to both.")


def _refuse_two_positions(header: nibabel.Nifti1Header, shape: tuple[int, ...]) -> None:
    """Refuses an sform and a qform that place the image differently: viewers go by the one or the other."""
    if int(header["sform_code"]) == 0 or int(header["qform_code"]) == 0:
        return
    far = [length - 1 for length in reversed(shape)] + [0] * (3 - len(shape))
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, last) for last in far))])  # (8, 4)
    sform, qform = header.get_sform(), header.get_qform()
    apart_mm = float(np.linalg.norm(corners @ (sform - qform).T, axis=1).max())
    if apart_mm > _POSITION_TOLERANCE_VOXELS * min(header["pixdim"][1 : 1 + len(shape)].tolist()):
        found = (
            f"two positions in the header, up to {apart_mm:.3g} mm apart: by sform (code {int(header['sform_code'])})"
            f" the first voxel is at {in_words(sform[:3, 3])}, by qform (code {int(header['qform_code'])}) at "
            f"{in_words(qform[:3, 3])}"
        )
        remedy = "Find out which is correct, and write it to both, or set the code of the other one to 0."
        raise UnreadableFile(found, "the same position in both", remedy)


def _refuse_position_that_readers_disagree_on(header: nibabel.Nifti1Header) -> None:
    for name in ("sform_code", "qform_code"):
        code = int(header[name])
        if code not in _POSITION_CODES:  # nibabel ignores the matrix, SimpleITK takes it if the code is positive
            raise UnreadableFile(f"{name} = {code} in the header", "0 to 5", _REPAIR_HEADER)
    qfac = float(header["pixdim"][0])
    if qfac not in (-1.0, 1.0):
        header["pixdim"][0] = 1  # the standard for 0, and both readers for any other number but negative ones
    if int(header["qform_code"]) == 0:
        return
    if qfac < 0 and qfac != -1:
        found = f"pixdim[0] = {qfac:g} in the header, which says whether z is mirrored"
        raise UnreadableFile(found, "1 or -1", _REPAIR_HEADER)
    # Also beside an sform: SimpleITK uses the qform unless the sform's code is 1.
    try:
        qform = header.get_qform()
    except (ValueError, HeaderDataError) as error:
        found = f"a quaternion in the header that is not a rotation ({error})"
        raise UnreadableFile(found, "quatern_b, c and d with a length of at most 1", _REPAIR_HEADER) from error
    if int(header["sform_code"]) > 0 and not np.isfinite(qform).all():
        found = "a qform in the header that is NaN or infinite, beside an sform"
        raise UnreadableFile(found, "finite numbers in both", _REPAIR_HEADER)
