"""Images made worse in ways that scanners and people make them worse, at middle strength (TorchIO)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import torchio

Corruption = Callable[[np.ndarray, int], np.ndarray]


def transformed(build: Callable[[int], torchio.Transform]) -> Corruption:
    """A TorchIO transform as a function of a z-scored image (x, y, z) and a seed."""

    def corrupt(image: np.ndarray, seed: int) -> np.ndarray:
        scalar = torchio.ScalarImage(tensor=image[None].astype(np.float32))
        return build(seed)(scalar).data[0].numpy()

    return corrupt


def zeroed_slices(image: np.ndarray, seed: int) -> np.ndarray:
    """Two neighbouring slices, the last axis, get the lowest value."""
    first = np.random.default_rng(seed).integers(image.shape[-1] - 1)
    result = image.copy()
    result[..., first : first + 2] = image.min()
    return result


def bias_coefficients(seed: int) -> list[float]:
    """The 20 coefficients of a polynomial of order 3, uniform in -0.6 to 0.6."""
    return np.random.default_rng(seed).uniform(-0.6, 0.6, 20).tolist()


CORRUPTIONS: dict[str, Corruption] = {  # in the image plane, since slices are thick
    "noise": transformed(lambda seed: torchio.Noise(mean=0, std=0.3, seed=seed)),
    "blur": transformed(lambda seed: torchio.Blur(std=(2, 2, 0))),
    "gamma": transformed(lambda seed: torchio.Gamma(gamma=float(np.exp(0.4 if seed % 2 else -0.4)))),
    "bias field": transformed(lambda seed: torchio.BiasField(coefficients=bias_coefficients(seed), order=3)),
    "ghosting": transformed(lambda seed: torchio.Ghosting(num_ghosts=4, axis=seed % 2, intensity=0.6, restore=0.02)),
    "zeroed slices": zeroed_slices,
    "contrast inversion": lambda image, seed: -image,
}


def corrupt_file(image: Path, corruption: str, seed: int, to: Path) -> None:
    """Writes a corrupted image, z-scored first, in the same geometry."""
    source = nibabel.load(image)
    values = np.asarray(source.dataobj, dtype=np.float32)
    scored = (values - values.mean()) / values.std()
    corrupted = CORRUPTIONS[corruption](scored, seed)
    nibabel.save(nibabel.Nifti1Image(corrupted.astype(np.float32), source.affine), to)
