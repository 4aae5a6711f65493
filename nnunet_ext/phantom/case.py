"""What every phantom is made of: a case, and smooth noise."""

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
        image: (z, y, x), or (channel, z, y, x) where there are several channels; arbitrary units.
        labels: (z, y, x).
        spacing_mm: distance between voxel centres along z, y, x.
    """

    image: Image
    labels: Labels
    spacing_mm: tuple[float, float, float]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]) -> Field:
    """A smooth random field with mean 0 and standard deviation 1."""
    # Wrapped, so that edges and corners vary no more than the middle.
    field = gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return (field - field.mean()) / field.std()
