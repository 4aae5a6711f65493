"""Reads one case and draws its slices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_ext.evaluation.label_maps import NotComparableError, read_label_map
from nnunet_ext.report.data import ReportCase
from nnunet_ext.report.overlays import data_uri, grey, picture_size, with_segmentation, with_uncertainty
from nnunet_ext.report.slices import picture_box, shown_slices

MAP_ORDER = ("entropy", "expected_entropy", "mutual_information", "variance", "confidence")  # the first is drawn
MAP_WORDS = {
    "entropy": "entropy",
    "expected_entropy": "expected entropy",
    "mutual_information": "mutual information",
    "variance": "variance",
    "confidence": "1 − confidence",
}
NOTICED = 0.2  # uncertainty that the crop should not cut off

Result = TypeVar("Result")


@dataclass(frozen=True)
class SlicePicture:
    """One slice.

    Attributes:
        title: such as "slice 3 of 12".
        reason: why it is shown.
        segmentation: picture as a data URI.
        uncertainty: likewise; empty without a map.
        width: of both, in pixels.
        height: likewise.
    """

    title: str
    reason: str
    segmentation: str
    uncertainty: str
    width: int
    height: int


@dataclass(frozen=True)
class CasePictures:
    """The slices of one case.

    Attributes:
        slices: by position; empty if the segmentation cannot be read.
        map_name: of the uncertainty, in words; empty without a map.
        has_truth: whether its outline is drawn.
        notes: what is missing, a sentence each.
    """

    slices: tuple[SlicePicture, ...] = ()
    map_name: str = ""
    has_truth: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Volumes:
    segmentation: np.ndarray
    image: np.ndarray
    uncertainty: np.ndarray | None
    truth: np.ndarray | None
    spacing_mm: tuple[float, float]


def draw_case(case: ReportCase, reader: BaseReaderWriter) -> CasePictures:
    """Draws a case's slices; what cannot be read is left out and named.

    Args:
        case: with its files.
        reader: of the dataset.
    """
    try:
        segmentation, properties = read_label_map(case.segmentation, reader)
    except NotComparableError as error:
        return CasePictures(notes=(f"No slices: {_without_folder(str(error), case.segmentation)}",))
    notes: list[str] = []
    shape = segmentation.shape

    def part(read: Callable[[], np.ndarray], what: str) -> np.ndarray | None:
        return _same_grid(_or_note(read, what, notes), shape, what, notes)

    image_files = [str(file) for file in case.image]
    image = part(lambda: reader.read_images(image_files)[0][0], "image") if image_files else None
    map_name = next((name for name in MAP_ORDER if name in case.maps), "")
    uncertainty = (
        part(lambda: _uncertainty(case.maps[map_name], map_name, reader), "uncertainty map") if map_name else None
    )
    truth_file = case.truth
    truth = part(lambda: read_label_map(truth_file, reader)[0], "truth") if truth_file else None
    if image is None:
        notes.append("No image: drawn on black.")
    volumes = _Volumes(
        segmentation,
        np.zeros(shape, dtype=np.float32) if image is None else image,
        uncertainty,
        truth,
        (float(properties["spacing"][1]), float(properties["spacing"][2])),
    )
    return CasePictures(
        tuple(_draw_slices(volumes)),
        MAP_WORDS[map_name] if uncertainty is not None else "",
        truth is not None,
        tuple(notes),
    )


def _draw_slices(volumes: _Volumes) -> list[SlicePicture]:
    chosen = shown_slices(volumes.segmentation, volumes.uncertainty)
    indices = list(chosen)
    marked = [volumes.segmentation[indices] > 0]
    marked += [] if volumes.truth is None else [volumes.truth[indices] > 0]
    if not any(mask.any() for mask in marked) and volumes.uncertainty is not None:
        marked = [volumes.uncertainty[indices] > NOTICED]
    crop = picture_box(marked, volumes.segmentation.shape[1:], volumes.spacing_mm)
    window = tuple(np.percentile(volumes.image[indices][:, crop[0], crop[1]], (0.5, 99.5)))
    pictures = []
    for index, reasons in chosen.items():
        part = (index, *crop)
        size = picture_size(volumes.segmentation[part].shape, volumes.spacing_mm)
        background = grey(volumes.image[part], window, size)
        truth = None if volumes.truth is None else volumes.truth[part]
        pictures.append(
            SlicePicture(
                title=f"slice {index + 1} of {len(volumes.segmentation)}",
                reason=", ".join(reasons),
                segmentation=data_uri(with_segmentation(background, volumes.segmentation[part], truth)),
                uncertainty=(
                    data_uri(with_uncertainty(background, volumes.uncertainty[part]))
                    if volumes.uncertainty is not None
                    else ""
                ),
                width=size[1],
                height=size[0],
            )
        )
    return pictures


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
        notes.append(f"The {what} has the shape {values.shape}, the segmentation {shape}; it is left out.")
        return None
    return values


def _without_folder(message: str, file: Path) -> str:
    """A message that names the file alone: the page may leave this machine."""
    return message.replace(str(file), file.name)
