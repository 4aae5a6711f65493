"""Slices as pictures: the segmentation's outlines on the image, and the uncertainty over it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from PIL import Image
from scipy.ndimage import binary_dilation

from nnunet_ext.report.contact_sheet import LABEL_COLOURS

LONGER_SIDE = 256  # pixels of a picture, more than its column is wide
FILL_OPACITY = 0.22
UNCERTAINTY_COLOURS = "inferno"
QUALITIES = (85, 50)  # of WebP: a third of the bytes of a PNG with a palette, and half of these where bytes are few

Rgb = np.ndarray  # (y, x, 3) float in [0, 1]


def label_colour(label: int) -> str:
    """The colour of a label, the same as on the demo's contact sheet."""
    return LABEL_COLOURS[(label - 1) % len(LABEL_COLOURS)]


def picture_size(
    shape: tuple[int, int], spacing_mm: tuple[float, float], longer_side: int = LONGER_SIDE
) -> tuple[int, int]:
    """Height and width in pixels that show a slice without distortion."""
    height_mm, width_mm = shape[0] * spacing_mm[0], shape[1] * spacing_mm[1]
    scale = longer_side / max(height_mm, width_mm)
    return max(round(height_mm * scale), 1), max(round(width_mm * scale), 1)


def grey(image: np.ndarray, window: tuple[float, float], size: tuple[int, int]) -> Rgb:
    """A slice (y, x) in grey, with its window's ends black and white."""
    return np.repeat(resized(_windowed(image, window), size)[..., None], 3, axis=2)


def grey_levels(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Intensities as bytes, with the window's ends 0 and 255."""
    return (_windowed(image, window) * 255).round().astype(np.uint8)


def _windowed(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    low, high = window
    return np.clip((image.astype(np.float64) - low) / max(high - low, 1e-12), 0, 1)


def with_segmentation(background: Rgb, labels: np.ndarray, truth: np.ndarray | None) -> Rgb:
    """Fills and outlines each label in its colour; the truth's borders are white in a dark rim.

    Args:
        background: (y, x, 3).
        labels: label map (y', x') of the same place.
        truth: label map (y', x'), or None.
    """
    picture = background.copy()
    size = picture.shape[:2]
    large = resized_labels(labels, size)
    for label in np.unique(large[large > 0]):
        colour = np.array(to_rgb(label_colour(int(label))))
        mask = large == label
        picture[mask] = (1 - FILL_OPACITY) * picture[mask] + FILL_OPACITY * colour
        picture[outline(mask)] = colour
    if truth is not None:
        large_truth = resized_labels(truth, size)
        borders = np.zeros(size, dtype=bool)
        for label in np.unique(large_truth[large_truth > 0]):
            borders |= outline(large_truth == label, width=1)
        picture[binary_dilation(borders)] *= 0.6
        picture[borders] = 1.0
    return picture


def with_uncertainty(background: Rgb, uncertainty: np.ndarray) -> Rgb:
    """Lays a map in [0, 1] over the image: the more certain, the more transparent."""
    colours = uncertainty_colours(np.clip(resized(uncertainty, background.shape[:2]), 0, 1))
    opacity = colours[..., 3:]
    return (1 - opacity) * background + opacity * colours[..., :3]


def uncertainty_colours(values: np.ndarray) -> np.ndarray:
    """(..., 4) red, green, blue and opacity in [0, 1] of uncertainties in [0, 1]; 0 is transparent."""
    colours = colormaps[UNCERTAINTY_COLOURS](0.25 + 0.75 * values)
    colours[..., 3] = np.sqrt(values)
    return colours


def outline(mask: np.ndarray, width: int = 2) -> np.ndarray:
    """The outermost pixels of a mask, so many thick; the edge of the picture is no outline."""
    rim = mask & binary_dilation(~mask)
    for _ in range(width - 1):
        rim |= mask & binary_dilation(rim)
    return rim


def resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(y, x) values on a grid of this height and width, smoothly; as they are where it is their own."""
    if values.shape == size:
        return values
    picture = Image.fromarray(values.astype(np.float32))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BICUBIC))


def resized_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A label map (y, x) on a grid of this height and width: the nearest label of each pixel, borders even."""
    if labels.shape == size:
        return labels
    values = np.unique(labels)
    masks = [
        Image.fromarray((labels == value).astype(np.float32)).resize(size[::-1], Image.Resampling.BILINEAR)
        for value in values
    ]
    return values[np.argmax([np.asarray(mask) for mask in masks], axis=0)]


def data_uri(picture: Rgb, quality: int = QUALITIES[0]) -> str:
    """A picture inside the page."""
    return webp_uri(Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8)), quality)


def webp_uri(picture: Image.Image, quality: int) -> str:
    """A picture with small errors, as text inside the page."""
    return _uri(picture, "WEBP", {"quality": quality, "use_sharp_yuv": True})


def png_uri(picture: Image.Image) -> str:
    """A picture with a palette, exactly as it is, as text inside the page."""
    return _uri(picture, "PNG", {"optimize": True})


def _uri(picture: Image.Image, file_format: str, options: dict[str, Any]) -> str:
    stream = io.BytesIO()
    picture.save(stream, format=file_format, **options)
    return f"data:image/{file_format.lower()};base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def uncertainty_scale() -> str:
    """The colours of the uncertainty from 0 to 1, as stops of a CSS gradient on mid-grey."""
    ramp = np.linspace(0, 1, 9)
    colours = with_uncertainty(np.full((1, len(ramp), 3), 0.4), ramp[None])
    return ", ".join("#" + "".join(f"{round(255 * part):02x}" for part in colour) for colour in colours[0].clip(0, 1))


def legend(names: Mapping[int, str]) -> list[tuple[str, str]]:
    """Name and colour of every label."""
    return [(name, label_colour(label)) for label, name in sorted(names.items())]
