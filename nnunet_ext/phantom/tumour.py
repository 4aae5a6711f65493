"""A synthetic tumour with a core in two channels: nested regions, and voxels that annotators left undecided."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, uniform_filter1d

from nnunet_ext.phantom.case import PhantomCase, smooth_noise

COMMON_SHAPE, COMMON_SPACING_MM = (36, 36, 36), (1.1, 1.1, 1.1)


def tumour_case(seed: int, *, ignore: bool = False, common_grid: bool = False) -> PhantomCase:
    """Draws one tumour with a core in textured tissue, in two channels.

    Args:
        seed: the same seed gives the same image, with and without `ignore`.
        ignore: whether to paint a few strokes of the ignore label 3, as if annotators had left parts undecided.
        common_grid: whether all seeds have the same shape and spacing, as images registered to an atlas.

    Returns:
        The image (2, z, y, x) float32, the labels (z, y, x) uint8 with 1 = tumour around the core, 2 = core and
        3 = ignored, and the spacing, 0.9 to 1.3 mm. Each side has 32 to 40 voxels.
    """
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(32, 41, size=3))
    spacing_mm = tuple(round(float(s), 2) for s in rng.uniform(0.9, 1.3, size=3))
    if common_grid:
        shape, spacing_mm = COMMON_SHAPE, COMMON_SPACING_MM
    grid = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing_mm, strict=True)), indexing="ij")
    extent_mm = np.array(shape) * np.array(spacing_mm)
    centre = rng.uniform(0.38, 0.62, size=3) * extent_mm
    radius = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)))
    radius = radius * (1.0 + 0.12 * smooth_noise(rng, shape, (5.0, 5.0, 5.0)))
    whole_mm = rng.uniform(9.0, 12.0)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[radius < whole_mm] = 1
    labels[radius < rng.uniform(0.4, 0.6) * whole_mm] = 2

    # Channel 0 shows the whole tumour, channel 1 the core.
    brightness = np.array([[1.0, 1.7, 1.6], [1.0, 0.9, 1.8]])
    image = np.stack([gaussian_filter(row[labels], 0.7) for row in brightness])
    image *= 1.0 + 0.08 * smooth_noise(rng, image.shape, (0.0, 2.0, 2.0, 2.0))
    image += rng.normal(0.0, 0.12, size=image.shape)
    if ignore:
        labels[_strokes(rng, shape)] = 3
    return PhantomCase((100.0 * image).astype(np.float32), labels, spacing_mm)  # type: ignore[arg-type]


def _strokes(rng: np.random.Generator, shape: tuple[int, ...], count: int = 4) -> npt.NDArray[np.bool_]:
    """(z, y, x) bool: thick curved brush strokes, each within a few neighbouring slices."""
    painted = np.zeros(shape, dtype=bool)
    limits = np.array(shape)
    for _ in range(count):
        steps = uniform_filter1d(rng.normal(0.0, 2.0, size=(40, 3)), 9, axis=0)
        path = rng.uniform(0.3, 0.7, size=3) * limits + np.cumsum(steps * (0.2, 1.0, 1.0), axis=0)
        for z, y, x in np.clip(np.round(path).astype(int), 1, limits - 2):
            painted[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = True
    return painted
