"""One DICOM series as a volume: read slice by slice, in the order of the slices' positions, with the checks for it.

SimpleITK's reader of series takes the distance of the first two slices for that of all, says little about a missing
slice or a tilted gantry, and converts all slices to the number type of the first. Therefore the slices are read one
by one, and the volume is put together from their own positions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_ext.files.listing import visible_files
from nnunet_ext.input_checks.findings import UnreadableFile

SERIES_UID, POSITION, ORIENTATION = "0020|000e", "0020|0032", "0020|0037"
PIXEL_SPACING, FRAMES, COMPONENTS = "0028|0030", "0028|0008", "0028|0002"
DESCRIPTION = "0008|103e"
_MAGIC_POSITION, _MAGIC = 128, b"DICM"
_SPACING_TOLERANCE = 0.01  # of the distance of two slices
_DIRECTION_TOLERANCE = 1e-4
_SHIFT_TOLERANCE_PIXELS = 0.5  # of the last slice against the first, sideways
_EXPORT_AGAIN = "Export the whole series again, as single-frame files, into a folder of its own."


CHANNEL_FOLDER = re.compile(r"(.+)_\d{4}")


@dataclass(frozen=True)
class Slice:
    """One file of a series.

    Attributes:
        path: the file.
        series: UID and description of its series.
        size: columns and rows.
        spacing_mm: distance of columns and of rows.
        position_mm: of the first pixel, in LPS.
        axes: (3, 2) unit vectors along a row and along a column.
    """

    path: Path
    series: tuple[str, str]
    size: tuple[int, int]
    spacing_mm: tuple[float, float]
    position_mm: NDArray[np.float64]
    axes: NDArray[np.float64]

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3) unit vector perpendicular to the slice, to which a right-handed volume grows."""
        return np.cross(self.axes[:, 0], self.axes[:, 1])


def series_folders(images: Path) -> dict[str, list[Path]]:
    """The folders `CASE_0000/`, by case; empty if there is no DICOM file in any of them."""
    found: dict[str, list[Path]] = {}
    for folder in visible_files(images):
        match = CHANNEL_FOLDER.fullmatch(folder.name)
        if match and folder.is_dir():
            found.setdefault(match[1], []).append(folder)
    folders = [folder for channels in found.values() for folder in channels]
    return found if any(is_dicom(path) for folder in folders for path in visible_files(folder)) else {}


def write_series_image(folder: Path, file: Path) -> list[Path]:
    """Writes a series as one image, and returns its files in the order of the slices.

    Raises:
        UnreadableFile: The folder does not hold one regular series.
        OSError, RuntimeError: The image cannot be written; the latter is SimpleITK's own.
    """
    slices = series_slices(folder)
    sitk.WriteImage(series_image(slices), str(file))
    return [each.path for each in slices]


def series_slices(folder: Path) -> list[Slice]:
    """The slices of the one series in a folder, in the order of their positions along its normal.

    Files that are not DICOM are left out.

    Raises:
        UnreadableFile: There is no series or more than one, a file is damaged, or the slices make no regular volume:
            one is missing or double, distances or directions differ, or the gantry was tilted.
        OSError: A file cannot be opened.
    """
    slices = [_read_slice(path) for path in visible_files(folder) if is_dicom(path)]
    _require_one_series(slices)
    _require_same_grid(slices)
    first = slices[0]
    slices.sort(key=lambda each: float(each.position_mm @ first.normal))
    _require_regular(slices)
    return slices


def series_image(slices: Sequence[Slice]) -> sitk.Image:
    """The volume of ordered slices, as rescaled numbers.

    Raises:
        UnreadableFile: The pixels of a slice cannot be read.
    """
    arrays = [_pixels(each) for each in slices]
    voxels = np.stack(arrays)  # (z, y, x), in a type that holds the numbers of all
    image = sitk.GetImageFromArray(voxels.astype(np.float32) if voxels.dtype.kind == "f" else voxels)
    first, last = slices[0], slices[-1]
    distance_mm = float((last.position_mm - first.position_mm) @ first.normal) / (len(slices) - 1)
    image.SetOrigin(first.position_mm.tolist())
    image.SetSpacing((*first.spacing_mm, distance_mm))
    image.SetDirection(np.column_stack([first.axes, first.normal]).ravel().tolist())
    return image


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its signature; the index of a disc is left out."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        file.seek(_MAGIC_POSITION)
        return file.read(len(_MAGIC)) == _MAGIC and path.name.upper() != "DICOMDIR"


def _read_slice(path: Path) -> Slice:
    reader = _reader(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise UnreadableFile(f"the damaged DICOM file {path.name}", "a complete file", _EXPORT_AGAIN) from error
    _require_grey_frame(path, reader)
    position, orientation = _numbers(path, reader, POSITION, 3), _numbers(path, reader, ORIENTATION, 6)
    rows_mm, columns_mm = _numbers(path, reader, PIXEL_SPACING, 2)
    axes = orientation.reshape(2, 3).T  # (3, 2)
    if not np.allclose(axes.T @ axes, np.eye(2), atol=_DIRECTION_TOLERANCE) or min(rows_mm, columns_mm) <= 0:
        raise UnreadableFile(
            f"directions or a pixel spacing in {path.name} that no image has", "two unit vectors at right angles and "
            "a spacing above 0", _EXPORT_AGAIN
        )  # fmt: skip
    columns, rows = reader.GetSize()[:2]
    series = (_text(reader, SERIES_UID), _text(reader, DESCRIPTION))
    return Slice(path, series, (columns, rows), (float(columns_mm), float(rows_mm)), position, axes)


def _require_grey_frame(path: Path, reader: sitk.ImageFileReader) -> None:
    frames, components = _text(reader, FRAMES) or "1", _text(reader, COMPONENTS) or "1"
    if frames != "1" or components != "1":
        found = f"{frames} frames and {components} numbers per pixel in {path.name}"
        remedy = "Convert multi-frame and colour objects to single grey frames, or to NIfTI, first."
        raise UnreadableFile(found, "one grey frame in each file", remedy)


def _require_one_series(slices: Sequence[Slice]) -> None:
    files = Counter(each.series for each in slices)
    if len(files) != 1:
        names = ", ".join(f"{name or uid} ({count} files)" for (uid, name), count in files.items())
        found = f"{len(files)} DICOM series{names and ': '}{names}"
        raise UnreadableFile(found, "one series in the folder of a channel", "Put each series into its own folder.")
    if len(slices) == 1:
        found = "a series of one slice, which says nothing about the distance of slices"
        raise UnreadableFile(found, "two slices or more", _EXPORT_AGAIN)


def _require_same_grid(slices: Sequence[Slice]) -> None:
    first = slices[0]
    for each in slices[1:]:
        same = each.size == first.size and np.allclose(each.spacing_mm, first.spacing_mm, rtol=1e-4)
        if not same or not np.allclose(each.axes, first.axes, atol=_DIRECTION_TOLERANCE):
            found = f"slices of different size, pixel spacing or direction: {first.path.name} and {each.path.name}"
            remedy = "Leave out scout images, and export the series again."
            raise UnreadableFile(found, "parallel slices on the same grid", remedy)


def _require_regular(slices: Sequence[Slice]) -> None:
    """Refuses slices, in order, that are not equally far apart and straight above each other."""
    first = slices[0]
    offsets = np.stack([each.position_mm for each in slices]) - first.position_mm  # (slices, 3)
    steps = np.diff(offsets @ first.normal)
    usual = float(np.median(steps))
    if steps.min() <= _SPACING_TOLERANCE * usual:
        number = int(np.argmin(steps))
        found = f"two slices at one position: {slices[number].path.name} and {slices[number + 1].path.name}"
        remedy = "Export one time point, echo or reconstruction into a folder of its own."
        raise UnreadableFile(found, "one slice at each position", remedy)
    if np.abs(steps - usual).max() > _SPACING_TOLERANCE * usual:
        number = int(np.argmax(np.abs(steps - usual)))
        between = f"{slices[number].path.name} and {slices[number + 1].path.name}"
        found = f"{steps[number]:.4g} mm between {between}, where others are {usual:.4g} mm apart"
        raise UnreadableFile(found, "slices at equal distances, none missing", _EXPORT_AGAIN)
    sideways = offsets[-1] - (offsets[-1] @ first.normal) * first.normal
    if np.linalg.norm(sideways) > _SHIFT_TOLERANCE_PIXELS * min(first.spacing_mm):
        angle = np.degrees(np.arctan2(np.linalg.norm(sideways), offsets[-1] @ first.normal))
        found = f"slices that are shifted against each other, as by a gantry tilted by {angle:.3g} degrees"
        remedy = "Resample the series to right angles, for instance with dcm2niix, and give the result as NIfTI."
        raise UnreadableFile(found, "slices straight above each other", remedy)


def _pixels(each: Slice) -> NDArray:
    try:
        return sitk.GetArrayFromImage(_reader(each.path).Execute())[0]  # (y, x)
    except RuntimeError as error:
        found = f"pixels in {each.path.name} that cannot be read"
        raise UnreadableFile(found, "complete pixels", _EXPORT_AGAIN) from error


def _reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _numbers(path: Path, reader: sitk.ImageFileReader, tag: str, count: int) -> NDArray[np.float64]:
    try:
        numbers = np.array([float(number) for number in _text(reader, tag).split("\\")])
    except ValueError:
        numbers = np.empty(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        found = f"{path.name} without a usable element ({tag.replace('|', ',')})"
        expected = "position, direction and pixel spacing in every file"
        raise UnreadableFile(found, expected, "Radiographs and derived images have none; give such images as NIfTI.")
    return numbers


def _text(reader: sitk.ImageFileReader, tag: str) -> str:
    return reader.GetMetaData(tag).strip(" \0") if reader.HasMetaDataKey(tag) else ""
