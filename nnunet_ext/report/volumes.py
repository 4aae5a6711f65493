"""All slices of a case for the viewer of its card, in as much of their resolution as a number of bytes allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnunet_ext.report.atlas import (
    MAP_LEVELS,
    MARGIN,
    MOST_LABELS,
    Grid,
    Size,
    channel_atlas,
    label_atlas,
    label_step,
    map_atlas,
)
from nnunet_ext.report.case_volumes import CaseVolumes
from nnunet_ext.report.overlays import QUALITIES, label_colour, picture_size
from nnunet_ext.report.slices import opening_slice, picture_box

PICTURE_BYTES = 18_000_000  # of a page of 20 MB; tables and plots take the rest
CANVAS_PIXELS = 640  # longer side of the viewer's canvas, which is about 420 points wide
WHOLE_PIXELS = 128  # a slice of this length or less is not cut to the foreground
SIDE_PIXELS = 512  # longer side of a slice in an atlas at most
ATLAS_PIXELS = 16_000_000  # of an atlas at most: browsers on phones decode no larger picture
SMALLEST_SIDE = 24  # longer side of a slice at least
SAMPLED_SLICES = 8  # from which the bytes of all are estimated
NOTICED = 0.5  # uncertainty that the crop should not cut off


@dataclass(frozen=True)
class VolumeView:
    """What the viewer of one case shows; pictures are data URIs.

    Attributes:
        grid: of all pictures.
        canvas: height and width of the canvas in pixels, with the proportions of the body.
        channels: a picture a channel; empty without an image.
        maps: name of a map to its picture.
        segmentation: the picture.
        truth: the picture; empty without a truth.
        colours: of the labels, in the order of their grey levels.
        reasons: number of a slice, from 1, to why it was chosen.
        start: number of the slice that is shown first.
        reduction: how much the resolution was reduced, in words; empty if it was not.
    """

    grid: Grid
    canvas: Size
    channels: tuple[str, ...]
    maps: Mapping[str, str]
    segmentation: str
    truth: str
    colours: tuple[str, ...]
    reasons: Mapping[int, str]
    start: int
    reduction: str

    @property
    def size(self) -> int:
        """Bytes of the pictures in the page."""
        return sum(map(len, (*self.channels, *self.maps.values(), self.segmentation, self.truth)))

    @property
    def data(self) -> dict[str, Any]:
        """For the script, as JSON."""
        return {
            "columns": self.grid.columns,
            "cell": self.grid.cell,
            "size": self.grid.size,
            "margin": MARGIN,
            "channels": self.channels,
            "maps": [{"name": name, "picture": picture} for name, picture in self.maps.items()],
            "segmentation": self.segmentation,
            "truth": self.truth,
            "colours": self.colours,
            "labelStep": label_step(len(self.colours)),
            "reasons": self.reasons,
        }


def view_volumes(volumes: CaseVolumes, chosen: Mapping[int, list[str]], budget: int) -> VolumeView | None:
    """Draws all slices; where they do not fit, with larger errors and then in a lower resolution.

    Args:
        volumes: of the case.
        chosen: index of a slice to the reasons why it was chosen, as `shown_slices` returns them.
        budget: bytes that all pictures may have.

    Returns:
        None if they have more at any resolution at which anything can be recognised.
    """
    crop = view_box(volumes)
    height, width = volumes.segmentation[0][crop].shape
    smallest = min(SMALLEST_SIDE, height, width)
    size = within_limits((height, width), len(volumes.segmentation))
    quality = QUALITIES[0]
    while max(size) >= smallest:
        expected = estimated_bytes(volumes, crop, size, quality)
        if expected <= 1.2 * budget:  # an estimate may be wrong: what is drawn counts
            view = draw_volumes(volumes, chosen, crop, size, quality)
            expected = view.size
            if expected <= budget:
                return view
        if quality == QUALITIES[0]:
            quality = QUALITIES[1]
        else:
            size = scaled(size, min(0.97 * math.sqrt(max(budget, 0) / expected), 0.95))
    return None


def estimated_bytes(volumes: CaseVolumes, crop: tuple[slice, slice], size: Size, quality: int) -> float:
    """Bytes that all slices have at a resolution if they are like some of them, evenly spaced."""
    step = math.ceil(len(volumes.segmentation) / SAMPLED_SLICES)
    some = replace(
        volumes,
        segmentation=volumes.segmentation[::step],
        channels=tuple(channel[::step] for channel in volumes.channels),
        maps={name: values[::step] for name, values in volumes.maps.items()},
        truth=None if volumes.truth is None else volumes.truth[::step],
    )
    drawn = draw_volumes(some, {0: []}, crop, size, quality).size
    return drawn * len(volumes.segmentation) / len(some.segmentation)


def view_box(volumes: CaseVolumes) -> tuple[slice, slice]:
    """What is shown of the plane: all of a small image, else the box of what is foreground or very uncertain."""
    height, width = volumes.segmentation.shape[1:]
    if max(height, width) <= WHOLE_PIXELS:
        return slice(0, height), slice(0, width)
    marked = [volumes.segmentation > 0]
    marked += [] if volumes.truth is None else [volumes.truth > 0]
    marked += [] if volumes.uncertainty is None else [volumes.uncertainty > NOTICED]
    return picture_box(marked, (height, width), volumes.spacing_mm)


def within_limits(size: Size, slices: int) -> Size:
    """The size itself, or the largest one that the limits of a side and of an atlas allow."""
    return scaled(size, min(1.0, SIDE_PIXELS / max(size), math.sqrt(ATLAS_PIXELS / (slices * size[0] * size[1]))))


def scaled(size: Size, factor: float) -> Size:
    """Height and width times a factor, at least a pixel each if it is above 0."""
    return tuple(max(int(side * factor), math.ceil(factor)) for side in size)  # type: ignore[return-value]


def draw_volumes(
    volumes: CaseVolumes, chosen: Mapping[int, list[str]], crop: tuple[slice, slice], size: Size, quality: int
) -> VolumeView:
    """Draws all slices at one resolution and one of the `QUALITIES`."""
    part = (slice(None), *crop)
    levels = MAP_LEVELS[QUALITIES.index(quality)]
    grid = Grid.of(len(volumes.segmentation), size)
    full = volumes.segmentation[0][crop].shape
    present = set(np.unique(volumes.segmentation)).union(() if volumes.truth is None else np.unique(volumes.truth))
    labels = np.array(sorted(label for label in present if label > 0), dtype=np.int64)[:MOST_LABELS]
    return VolumeView(
        grid=grid,
        canvas=picture_size(full, volumes.spacing_mm, CANVAS_PIXELS),
        channels=tuple(channel_atlas(channel[part], grid, quality) for channel in volumes.channels),
        maps={name: map_atlas(values[part], grid, levels) for name, values in volumes.maps.items()},
        segmentation=label_atlas(volumes.segmentation[part], labels, grid),
        truth="" if volumes.truth is None else label_atlas(volumes.truth[part], labels, grid),
        colours=tuple(label_colour(int(label)) for label in labels),
        reasons={index + 1: ", ".join(reasons) for index, reasons in chosen.items()},
        start=opening_slice(chosen) + 1,
        reduction=reduction(full, size, volumes.spacing_mm),
    )


def reduction(full: Size, size: Size, spacing_mm: tuple[float, float]) -> str:
    """Such as "1.4 × 1.4 mm per pixel instead of 0.7 × 0.7 mm", x before y; empty at full resolution."""
    if size == full:
        return ""
    pixel_mm = [step * before / now for step, before, now in zip(spacing_mm, full, size, strict=True)]
    shown, original = (f"{x:.3g} × {y:.3g} mm" for y, x in (pixel_mm, spacing_mm))
    return f"{shown} per pixel instead of {original}"
