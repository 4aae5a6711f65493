"""Pictures of what a masked auto-encoder saw, what it filled in, and the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from nnunet_ext.files.atomic import atomic_path

TITLES = ("seen", "filled in", "image")
MOST_ROWS = 3
SMALLEST_SIDE = 160  # pixels
GAP = 4
TITLE_HEIGHT = 14
WINDOW = (1, 99)  # percentiles of the image that become black and white


def save_reconstructions(image: Tensor, visible: Tensor, reconstruction: Tensor, file: Path) -> None:
    """Writes a PNG with one row per sample: what the network saw, its reconstruction, and the image.

    The first channel is shown; of a volume, the middle slice along the first axis.

    Args:
        image: (B, channels, *spatial).
        visible: (B, 1, *spatial), 1 for visible voxels and 0 for hidden ones.
        reconstruction: (B, channels, *spatial); shown where voxels are hidden, the image elsewhere.
        file: name of the picture; its folder is made.
    """
    rows = [
        picture_row(*(middle_slice(tensor[sample, 0]) for tensor in (image, visible, reconstruction)))
        for sample in range(min(MOST_ROWS, len(image)))
    ]
    width = max(row.width for row in rows)
    sheet = Image.new("L", (width, TITLE_HEIGHT + sum(row.height + GAP for row in rows)), 0)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(TITLES):
        draw.text((column * (width + GAP) // len(TITLES), 0), title, fill=255)
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


def picture_row(image: np.ndarray, visible: np.ndarray, reconstruction: np.ndarray) -> Image.Image:
    """Three slices (y, x) side by side, in the grey values of the image."""
    black, white = np.percentile(image, WINDOW)
    seen = np.where(visible > 0, image, black)
    filled = np.where(visible > 0, image, reconstruction)
    factor = max(1, round(SMALLEST_SIDE / max(image.shape)))
    tiles = [grey_tile(plane, black, white).repeat(factor, 0).repeat(factor, 1) for plane in (seen, filled, image)]
    height, width = tiles[0].shape
    row = np.zeros((height, 3 * width + 2 * GAP), np.uint8)
    for column, tile in enumerate(tiles):
        row[:, column * (width + GAP) :][:, :width] = tile
    return Image.fromarray(row)


def grey_tile(plane: np.ndarray, black: float, white: float) -> np.ndarray:
    """A slice as 8-bit grey values; a constant one is black."""
    return (255 * np.clip((plane - black) / max(white - black, 1e-6), 0, 1)).astype(np.uint8)
