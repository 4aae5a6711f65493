"""Shared by all phantoms: a synthetic case, and smooth noise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Image = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float64]


class PhantomCase(NamedTuple):
    """One synthetic case.

    Attributes:
        image: (z, y, x), or (channel, z, y, x) with several channels; arbitrary units.
        labels: (z, y, x), the label map.
        spacing_mm: distance between voxel centres along z, y, x.
    """

    image: Image
    labels: Labels
    spacing_mm: tuple[float, float, float]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]) -> Field:
    """A smooth random field with mean 0 and standard deviation 1; `sigma` is in voxels along each axis."""
    # mode="wrap" makes the variance the same at the borders and in the middle
    field = gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return (field - field.mean()) / field.std()
