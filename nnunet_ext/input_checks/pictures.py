"""Pictures and stacks of pictures: .png, .bmp, .tif and .tiff."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import skimage.io
import tifffile
from numpy.typing import NDArray
from PIL.Image import DecompressionBombError

from nnunet_ext.input_checks.byte_streams import COPY_AGAIN
from nnunet_ext.input_checks.findings import UnreadableFile
from nnunet_ext.input_checks.stored_image import StoredImage

PICTURE_READER = "NaturalImage2DIO"
STACK_READER = "Tiff3DIO"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNEL_NUMBER_LENGTH = len("_0000")
# Decoders raise whatever error their parsers run into on damaged files.
_DECODING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    DecompressionBombError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tifffile.TiffFileError,  # a plain Exception in older versions
    zlib.error,
)


def read_picture(image: StoredImage) -> None:
    """Fills `image` from its picture file and, for a stack, from the .json file with the spacing.

    Raises:
        UnreadableFile: The file is damaged or not a picture, or the spacing file is unusable.
        OSError: The file cannot be opened.
    """
    if image.path.suffix.lower() == ".png":
        _verify_png_chunks(image.path)
    array = _decode(image)
    if not image.reader:
        looks_like_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))
        image.reader = PICTURE_READER if looks_like_picture else STACK_READER
    if image.reader == PICTURE_READER and array.ndim == 3 and array.shape[-1] in (3, 4):
        array = array.transpose(2, 0, 1)  # (channels, y, x)
        image.channels = array.shape[0]
    else:
        array = array[None]  # (1, [z,] y, x)
    image.dimensions, image.shape, image.values = array.ndim - 1, array.shape[1:], array
    image.components = 2 if array.dtype.kind == "c" else 1
    if image.reader == STACK_READER:
        image.spacing_mm = _spacing_beside(image)


def _decode(image: StoredImage) -> NDArray:
    is_tiff = image.path.suffix.lower() in (".tif", ".tiff")
    try:
        if is_tiff:
            _verify_tiff_pages(image.path)
        if is_tiff and image.reader == STACK_READER:
            return tifffile.imread(image.path)
        # skimage turns the first axis of a TIFF into channels if its length is 3 or 4: read as the reader does.
        return np.asarray(skimage.io.imread(image.path))
    except _DECODING_ERRORS as error:
        message = str(error).strip().splitlines() or [type(error).__name__]
        raise UnreadableFile(
            f"a file that cannot be decoded ({message[-1]})", "a complete picture", COPY_AGAIN
        ) from error


def _verify_png_chunks(path: Path) -> None:
    """Refuses a PNG file with a wrong checksum or without its end; Pillow accepts both."""
    with path.open("rb") as file:
        if file.read(len(_PNG_SIGNATURE)) != _PNG_SIGNATURE:
            raise UnreadableFile("a file without the PNG signature", "a PNG file", COPY_AGAIN)
        kind = b""
        while kind != b"IEND":
            length_and_kind = file.read(8)
            kind = length_and_kind[4:]
            body = file.read(int.from_bytes(length_and_kind[:4], "big")) if len(kind) == 4 else b""
            checksum = file.read(4)
            if len(checksum) < 4:
                raise UnreadableFile("a truncated PNG file", "a PNG file up to its IEND chunk", COPY_AGAIN)
            if zlib.crc32(kind + body) != int.from_bytes(checksum, "big"):
                found = f"a PNG chunk {kind!r} that fails its checksum"
                raise UnreadableFile(found, "chunks that agree with their checksums", COPY_AGAIN)


def _verify_tiff_pages(path: Path) -> None:
    """Refuses a truncated stack, of which tifffile returns the first pages and says so in its log only."""
    with tifffile.TiffFile(path) as tiff:
        file, layout = tiff.filehandle, tiff.tiff
        seen: set[int] = set()
        file.seek(layout.offsetsize)  # the first link is after 4 bytes in a TIFF, after 8 in a BigTIFF
        link = file.read(layout.offsetsize)
        while len(link) == layout.offsetsize:
            (page,) = struct.unpack(layout.offsetformat, link)
            if page == 0:
                return
            if page in seen or page >= file.size:
                break
            seen.add(page)
            file.seek(page)
            (tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
            file.seek(page + layout.tagnosize + tags * layout.tagsize)
            link = file.read(layout.offsetsize)
    found = f"a TIFF file whose list of pages ends abruptly after page {len(seen)}"
    raise UnreadableFile(found, "a terminated list of pages", COPY_AGAIN)


def spacing_file(path: Path, *, is_label_map: bool) -> Path:
    """The .json file in which nnU-Net's `Tiff3DIO` looks for the spacing of a stack: `CASE.json`."""
    stem = path.name[: -len(path.suffix)]
    return path.with_name(f"{stem if is_label_map else stem[:-_CHANNEL_NUMBER_LENGTH]}.json")


def spacing_is_known(path: Path, reader: str, *, is_label_map: bool) -> bool:
    """Whether a file says what its spacing is; where none is known, nnU-Net assumes 1.

    Args:
        path: an image `CASE_0000<ending>`, or a label map `CASE<ending>`.
        reader: name of nnU-Net's class that reads it.
        is_label_map: which of the two it is.
    """
    if reader == STACK_READER:
        return spacing_file(path, is_label_map=is_label_map).is_file()
    return reader != PICTURE_READER


def _spacing_beside(image: StoredImage) -> tuple[float, ...]:
    """The spacing in the .json file that nnU-Net's `Tiff3DIO` reads; (1, 1, 1) without that file, as in nnU-Net."""
    file = spacing_file(image.path, is_label_map=image.is_segmentation)
    if not file.is_file():
        return (1.0, 1.0, 1.0)
    try:
        z, y, x = (float(spacing) for spacing in json.loads(file.read_text(encoding="utf-8"))["spacing"])
    except (KeyError, TypeError, ValueError) as error:
        remedy = 'Write {"spacing": [z, y, x]} into it.'
        found = f"no usable spacing in {file.name} ({type(error).__name__}: {error})"
        raise UnreadableFile(found, 'three numbers under the key "spacing"', remedy) from error
    return (x, y, z)
