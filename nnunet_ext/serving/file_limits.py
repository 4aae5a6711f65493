"""What an uploaded file may be, looked at before any reader takes memory for its voxels.

A file must be of the format that its name says, hold its voxels itself, and neither announce nor decompress to more
than the limit. ITK chooses a reader by a file's content, and some formats name other files to read: without these
checks an upload could make the server read a file of its own.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk
import tifffile
from PIL import Image, UnidentifiedImageError

from nnunet_ext.input_checks.byte_streams import GZIP_MAGIC, inflated_pieces
from nnunet_ext.input_checks.findings import UnreadableFile
from nnunet_ext.input_checks.itk_header import read_itk_header
from nnunet_ext.serving.refusal import Refusal

MOST_BYTES_PER_VOXEL = 8
MOST_HEADER_BYTES = 1 << 20
MOST_TEXT_BYTES = 1 << 16  # of a header that is text
_ITK_FORMATS = {
    ".nii.gz": "NiftiImageIO",
    ".nii": "NiftiImageIO",
    ".nrrd": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".gipl": "GiplImageIO",
}
_META_DATA_FILE = re.compile(rb"elementdatafile", re.IGNORECASE)
_META_LOCAL = re.compile(rb"^ElementDataFile = LOCAL\r?\n", re.MULTILINE)
_NRRD_DATA_FILE = re.compile(rb"data ?file", re.IGNORECASE)
_NRRD_HEADER_END = re.compile(rb"\n\r?\n")
_OTHER_FILES_OF_TIFF = ("is_ome", "is_mmstack", "is_ndtiff", "is_micromanager")


@dataclass(frozen=True)
class Announced:
    """What a header says.

    Attributes:
        shape: voxels along each axis, (x, y[, z[, ...]]); empty for a TIFF, whose spacing nobody reads.
        numbers: numbers in the file, all components and channels counted.
        spacing_mm: distance between voxels along the axes of `shape`; empty where the file has none.
    """

    shape: tuple[int, ...]
    numbers: int
    spacing_mm: tuple[float, ...] = ()


def require_small_file(path: Path, ending: str, voxels: int) -> Announced:
    """Refuses a file that is not what its name says, names another file, or holds too much.

    Args:
        path: an uploaded file, under a name that the server gave it.
        ending: of the dataset's images, in lower case.
        voxels: most numbers in the file.

    Returns:
        What the header says.

    Raises:
        Refusal: with status 413 for too much, with 422 for everything else.
    """
    look = _PICTURES.get(ending) or _look_through_itk
    announced = look(path, ending, voxels)
    if announced.numbers > voxels:
        raise Refusal(
            413,
            f"An image may hold {voxels} numbers (--max-voxels); {path.name} announces {announced.numbers}. Crop it.",
        )
    return announced


def require_small_stream(path: Path, most_bytes: int, offset: int = 0) -> None:
    """Decompresses a gzip or zlib stream without keeping it, and refuses one that grows beyond a limit.

    A damaged stream is left to the checks of the input, which say where it is damaged.

    Raises:
        Refusal: with status 413.
    """
    total = 0
    with path.open("rb") as file, suppress(UnreadableFile):
        file.seek(offset)
        for piece in inflated_pieces(file):
            total += len(piece)
            if total > most_bytes:
                break
    if total > most_bytes:
        raise Refusal(413, f"{path.name} decompresses to more than {most_bytes} bytes, the limit of --max-voxels.")


def _look_through_itk(path: Path, ending: str, voxels: int) -> Announced:
    expected = _ITK_FORMATS.get(ending)
    if expected is None:
        raise Refusal(422, f"The server takes {', '.join((*_ITK_FORMATS, *_PICTURES))}; this model takes {ending}.")
    if sitk.ImageFileReader.GetImageIOFromFileName(str(path)) != expected:
        raise Refusal(422, f"{path.name} is not a file of the format that its name says. Export the image again.")
    start = _VOXEL_DATA[ending](path)
    with path.open("rb") as file:
        file.seek(start)
        is_compressed = file.read(2) == GZIP_MAGIC or ending in (".nrrd", ".mha")
    if is_compressed:  # of the two others also what is not: that is no stream, or a small one
        require_small_stream(path, MOST_BYTES_PER_VOXEL * voxels + MOST_HEADER_BYTES, start)
    try:
        header = read_itk_header(path)
    except UnreadableFile as error:
        raise Refusal(422, f"{path.name}: found {error.found}; expected {error.expected}. {error.remedy}") from error
    return Announced(header.size, math.prod(header.size) * header.components, header.spacing_mm)


def _from_start(path: Path) -> int:
    return 0


def _meta_data_start(path: Path) -> int:
    """Where the voxels begin; refuses a header that is not short and plain, with its voxels in the same file."""
    content = _Mapped(path)
    local = _META_LOCAL.search(content.head)
    if local is None or content.count(_META_DATA_FILE) != 1:
        raise _not_by_itself(path, '"ElementDataFile = LOCAL" once, at the end of its header')
    return local.end()


def _nrrd_data_start(path: Path) -> int:
    """Where the voxels begin; refuses a header that is long or names another file."""
    content = _Mapped(path)
    end = _NRRD_HEADER_END.search(content.head)
    if end is None or content.count(_NRRD_DATA_FILE):
        raise _not_by_itself(path, 'a short header without "data file"')
    return end.end()


class _Mapped:
    """A file searched for bytes; only its beginning is in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.head = file.read(MOST_TEXT_BYTES)

    def count(self, pattern: re.Pattern[bytes]) -> int:
        """How often a pattern occurs in the file, at most 2."""
        if not self.head:
            return 0
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return sum(1 for _, _ in zip(range(2), pattern.finditer(content), strict=False))


def _not_by_itself(path: Path, expected: str) -> Refusal:
    return Refusal(422, f"{path.name} must hold its own voxels, with {expected}. Save the image as one file.")


def _look_at_picture(path: Path, ending: str, voxels: int) -> Announced:
    try:
        with Image.open(path, formats=[ending[1:].upper()]) as picture:
            return Announced(picture.size, math.prod(picture.size) * len(picture.getbands()))
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise Refusal(422, f"{path.name} is not a picture that can be read, or a very large one.") from error


def _look_at_tiff(path: Path, ending: str, voxels: int) -> Announced:
    numbers = 0
    try:
        with tifffile.TiffFile(path) as tiff:
            if any(getattr(tiff, name, False) for name in _OTHER_FILES_OF_TIFF):
                raise Refusal(422, f"{path.name} may name other files, as OME-TIFF does. Save it as a plain TIFF.")
            for page in tiff.pages:
                numbers += max(math.prod(page.shape), math.prod(getattr(page, "tile", None) or (0,)))
                if numbers > voxels:
                    break
    except (OSError, ValueError, LookupError, RuntimeError, tifffile.TiffFileError) as error:
        raise Refusal(422, f"{path.name} is not a TIFF file that can be read.") from error
    return Announced((), numbers)


_VOXEL_DATA: dict[str, Callable[[Path], int]] = {
    ".nii.gz": _from_start,
    ".nii": _from_start,
    ".gipl": _from_start,
    ".nrrd": _nrrd_data_start,
    ".mha": _meta_data_start,
}
_PICTURES: dict[str, Callable[[Path, str, int], Announced]] = {
    ".png": _look_at_picture,
    ".bmp": _look_at_picture,
    ".tif": _look_at_tiff,
    ".tiff": _look_at_tiff,
}
