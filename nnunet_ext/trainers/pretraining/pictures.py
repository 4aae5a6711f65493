"""Pictures of what a network without labels saw, what it made of it, and what was wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from nnunet_ext.files.atomic import atomic_path

MOST_ROWS = 3
SMALLEST_SIDE = 160  # pixels
GAP = 4
TITLE_HEIGHT = 14
WINDOW = (1, 99)  # percentiles of an image that become black and white


@dataclass(frozen=True)
class Column:
    """One column of a picture.

    Attributes:
        title: above it.
        volume: (B, channels, *spatial); the first channel is shown.
        limits: values that are black and white; None takes percentiles of the row's last slice without limits.
    """

    title: str
    volume: Tensor
    limits: tuple[float, float] | None = None


def save_pictures(columns: Sequence[Column], file: Path) -> None:
    """Writes a PNG with one row per sample; of a volume, the middle slice along the first axis.

    Args:
        columns: from left to right, of the same batch; at least one has no limits.
        file: name of the picture; its folder is made.
    """
    samples = min(MOST_ROWS, len(columns[0].volume))
    rows = [
        picture_row([middle_slice(column.volume[sample, 0]) for column in columns], [c.limits for c in columns])
        for sample in range(samples)
    ]
    width = max(row.width for row in rows)
    sheet = Image.new("L", (width, TITLE_HEIGHT + sum(row.height + GAP for row in rows)), 0)
    draw = ImageDraw.Draw(sheet)
    for number, column in enumerate(columns):
        draw.text((number * (width + GAP) // len(columns), 0), column.title, fill=255)
    top = TITLE_HEIGHT
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + GAP
    file.parent.mkdir(exist_ok=True)
    with atomic_path(file) as temporary:
        sheet.save(temporary, format="PNG")


def middle_slice(volume: Tensor) -> np.ndarray:
    """(y, x) as it is, (z, y, x) in its middle; float32 on the CPU."""
    plane = volume if volume.ndim == 2 else volume[len(volume) // 2]
    return plane.detach().float().cpu().numpy()


def picture_row(planes: Sequence[np.ndarray], limits: Sequence[tuple[float, float] | None]) -> Image.Image:
    """Slices (y, x) of one size side by side, each with its limits or with those of the last slice without any."""
    reference = [plane for plane, own in zip(planes, limits, strict=True) if own is None][-1]
    black, white = np.percentile(reference, WINDOW)
    factor = max(1, round(SMALLEST_SIDE / max(reference.shape)))
    tiles = [
        grey_tile(plane, *(own or (black, white))).repeat(factor, 0).repeat(factor, 1)
        for plane, own in zip(planes, limits, strict=True)
    ]
    height, width = tiles[0].shape
    row = np.zeros((height, len(tiles) * (width + GAP) - GAP), np.uint8)
    for column, tile in enumerate(tiles):
        row[:, column * (width + GAP) :][:, :width] = tile
    return Image.fromarray(row)


def grey_tile(plane: np.ndarray, black: float, white: float) -> np.ndarray:
    """A slice as 8-bit grey values; a constant one is black."""
    return (255 * np.clip((plane - black) / max(white - black, 1e-6), 0, 1)).astype(np.uint8)
