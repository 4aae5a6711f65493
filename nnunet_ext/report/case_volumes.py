"""Reads the files of one case: segmentation, image, maps and truth, all on the segmentation's grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_ext.evaluation.end_slices import stack_axis_of
from nnunet_ext.evaluation.label_maps import NotComparableError, read_label_map
from nnunet_ext.input_checks.dicom_series import write_series_image
from nnunet_ext.report.data import ReportCase

# The first one that is there is drawn.
MAP_ORDER = ("entropy", "expected_entropy", "mutual_information", "variance", "tta_variance", "confidence")
MAP_WORDS = {
    "entropy": "entropy",
    "expected_entropy": "expected entropy",
    "mutual_information": "mutual information",
    "variance": "variance",
    "tta_variance": "TTA variance",
    "confidence": "1 − confidence",
}

Result = TypeVar("Result")


class NoSegmentationError(ValueError):
    """The segmentation cannot be read, so there is nothing to draw; the message names the file without its folder."""


@dataclass(frozen=True)
class CaseVolumes:
    """One case; every array is (z, y, x) of the same shape, and slices are stacked along z.

    Attributes:
        segmentation: label map.
        channels: of the image, any intensities; empty if it is missing or cannot be read.
        maps: name in words to uncertainty in [0, 1], in the order in which they are offered.
        truth: label map, or None.
        spacing_mm: along y and x.
        notes: what is left out, one sentence each.
    """

    segmentation: np.ndarray
    channels: tuple[np.ndarray, ...] = ()
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    truth: np.ndarray | None = None
    spacing_mm: tuple[float, float] = (1.0, 1.0)
    notes: tuple[str, ...] = ()

    @property
    def map_name(self) -> str:
        """Of the map that is drawn first; empty without maps."""
        return next(iter(self.maps), "")

    @property
    def uncertainty(self) -> np.ndarray | None:
        """The map that is drawn first; None without maps."""
        return next(iter(self.maps.values()), None)


def read_volumes(case: ReportCase, reader: BaseReaderWriter, stack_axis: int | None) -> CaseVolumes:
    """Reads a case; what cannot be read beside the segmentation is left out and named.

    Args:
        case: with its files.
        reader: of the dataset.
        stack_axis: along which slices are stacked, on the axes of the reader; None takes the one of the largest
            spacing. It becomes the first one.

    Raises:
        NoSegmentationError: if the segmentation cannot be read.
    """
    try:
        segmentation, properties = read_label_map(case.segmentation, reader)
    except NotComparableError as error:
        raise NoSegmentationError(str(error).replace(str(case.segmentation), case.segmentation.name)) from error
    notes: list[str] = []

    def part(read: Callable[[], np.ndarray], what: str) -> np.ndarray | None:
        return _same_grid(_or_note(read, what, notes), segmentation.shape, what, notes)

    ending = case.segmentation.name.removeprefix(case.name)
    image = _or_note(lambda: _image(case.image, ending, reader), "image", notes) if case.image else None
    channels = () if image is None else tuple(image)
    if channels and _same_grid(channels[0], segmentation.shape, "image", notes) is None:
        channels = ()
    if not channels:
        notes.append("No image: drawn on black.")
    maps = {
        MAP_WORDS[name]: part(partial(_uncertainty, case.maps[name], name, reader), f"map {MAP_WORDS[name]}")
        for name in MAP_ORDER
        if name in case.maps
    }
    truth_file = case.truth
    truth = part(lambda: read_label_map(truth_file, reader)[0], "truth") if truth_file else None
    spacing = [float(step) for step in properties["spacing"]]
    axis = stack_axis_of(spacing) if stack_axis is None else stack_axis
    del spacing[axis]
    return CaseVolumes(
        np.moveaxis(segmentation, axis, 0),
        tuple(np.moveaxis(channel, axis, 0) for channel in channels),
        {name: np.moveaxis(values, axis, 0) for name, values in maps.items() if values is not None},
        None if truth is None else np.moveaxis(truth, axis, 0),
        (spacing[0], spacing[1]),
        tuple(notes),
    )


def _image(channels: Sequence[Path], ending: str, reader: BaseReaderWriter) -> np.ndarray:
    """(channels, z, y, x) on the case's grid; a series is read as the image that `predict` made of it."""
    with TemporaryDirectory(prefix="nnunet_ext-") as folder:
        files = []
        for channel in channels:
            file = Path(folder) / f"{channel.name}{ending}" if channel.is_dir() else channel
            if channel.is_dir():
                write_series_image(channel, file)
            files.append(str(file))
        return reader.read_images(files)[0]


def _uncertainty(file: Path, name: str, reader: BaseReaderWriter) -> np.ndarray:
    values = reader.read_images([str(file)])[0][0]
    return 1 - values if name == "confidence" else values


def _or_note(read: Callable[[], Result], what: str, notes: list[str]) -> Result | None:
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - each reader raises errors of its own; the page names it
        notes.append(f"The {what} cannot be read ({type(error).__name__}) and is left out.")
        return None


def _same_grid(values: np.ndarray | None, shape: tuple[int, ...], what: str, notes: list[str]) -> np.ndarray | None:
    if values is not None and values.shape != shape:
        notes.append(f"The {what} has shape {values.shape}, the segmentation {shape}; it is left out.")
        return None
    return values
