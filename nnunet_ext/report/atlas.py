"""A layer of a case as one picture: its slices in the cells of a grid, row by row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from nnunet_ext.report.overlays import grey_levels, png_uri, resized, uncertainty_colours, webp_uri

MARGIN = 2  # pixels around a slice that repeat its edge: browsers that enlarge it smoothly look beyond the edge
CELL_STEP = 8  # cells start at multiples of it: WebP codes blocks, which then belong to one slice
MAP_LEVELS = (64, 16)  # shades of a map beside channels of each of the `QUALITIES`
MOST_LABELS = 255  # what a byte tells apart, beside the background
SAMPLED_VOXELS = 2_000_000  # enough to find the window of the intensities

Size = tuple[int, int]  # height and width in pixels
Draw = Callable[[np.ndarray, Size], np.ndarray]


@dataclass(frozen=True)
class Grid:
    """Where the slices lie.

    Attributes:
        slices: how many.
        size: of a slice.
        cell: that holds it, `MARGIN` from the left and the top.
        columns: cells of a row.
    """

    slices: int
    size: Size
    cell: Size
    columns: int

    @classmethod
    def of(cls, slices: int, size: Size) -> Grid:
        """A grid about as high as wide."""
        height, width = (math.ceil((side + 2 * MARGIN) / CELL_STEP) * CELL_STEP for side in size)
        return cls(slices, size, (height, width), min(math.ceil(math.sqrt(slices * height / width)), slices))

    def atlas(self, volume: np.ndarray, draw: Draw) -> np.ndarray:
        """(y, x) uint8: every slice of a volume (z, y, x), drawn, and its edge repeated all around it."""
        height, width = self.cell
        pixels = np.zeros((math.ceil(self.slices / self.columns) * height, self.columns * width), dtype=np.uint8)
        beyond = [(MARGIN, whole - side - MARGIN) for whole, side in zip(self.cell, self.size, strict=True)]
        for index, values in enumerate(volume):
            top, left = index // self.columns * height, index % self.columns * width
            pixels[top : top + height, left : left + width] = np.pad(draw(values, self.size), beyond, mode="edge")
        return pixels


def channel_atlas(volume: np.ndarray, grid: Grid, quality: int) -> str:
    """One channel of the image, in grey: lossy, for a lossless picture is three times as large."""
    window = grey_window(volume)
    pixels = grid.atlas(volume, lambda values, size: grey_levels(resized(values, size), window))
    return webp_uri(Image.fromarray(pixels), quality)


def map_atlas(volume: np.ndarray, grid: Grid, levels: int) -> str:
    """A map in [0, 1] in its colours, to be laid over the image.

    Lossless, because a lossy picture has faint uncertainty where there is none. The levels are evenly spaced in
    opacity, which is the root of the value.
    """

    def draw(values: np.ndarray, size: Size) -> np.ndarray:
        opacity = np.sqrt(np.clip(resized(values, size), 0, 1))
        return (opacity * (levels - 1)).round().astype(np.uint8)

    colours = uncertainty_colours(np.linspace(0, 1, levels) ** 2)
    picture = Image.fromarray(grid.atlas(volume, draw))
    picture.putpalette((colours * 255).round().astype(np.uint8).tobytes(), "RGBA")
    return png_uri(picture)


def label_atlas(volume: np.ndarray, labels: np.ndarray, grid: Grid) -> str:
    """A label map: black, and for the n-th label n steps of grey, `label_step` apart.

    Args:
        volume: (z, y, x).
        labels: that are drawn, ascending, without the background.
        grid: of the case.
    """
    known = labels[:MOST_LABELS]
    values = np.concatenate([[0], known])

    def draw(slice_labels: np.ndarray, size: Size) -> np.ndarray:
        nearest = np.asarray(
            Image.fromarray(slice_labels.astype(np.int32)).resize(size[::-1], Image.Resampling.NEAREST)
        )
        return np.where(np.isin(nearest, values), np.searchsorted(values, nearest), 0).astype(np.uint8)

    picture = Image.fromarray(grid.atlas(volume, draw))
    picture.putpalette(np.repeat(np.arange(len(values)) * label_step(len(known)), 3).astype(np.uint8).tobytes())
    return png_uri(picture)


def label_step(labels: int) -> int:
    """Distance of two labels in grey: wide, because some browsers falsify the last bit of what a script reads."""
    return 255 // max(min(labels, MOST_LABELS), 1)


def grey_window(volume: np.ndarray) -> tuple[float, float]:
    """Intensities that become black and white, from a share of the voxels where they are many."""
    values = volume.reshape(-1)
    low, high = np.percentile(values[:: max(values.size // SAMPLED_VOXELS, 1)], (0.5, 99.5))
    return float(low), float(high)
