"""The loss of reconstructed images over the voxels that count."""

from __future__ import annotations

from torch import Tensor


def reconstruction_error(outputs: Tensor, images: Tensor, counted: Tensor) -> Tensor:
    """The mean squared error over the counted voxels of all channels, in float32; 0 if none is counted.

    Args:
        outputs: (B, channels, *spatial).
        images: the same shape.
        counted: (B, 1, *spatial), 1 for voxels that count, else 0.
    """
    squares = (outputs.float() - images).square() * counted
    return squares.sum() / (counted.sum() * images.shape[1]).clamp(min=1)


def explained_variance(outputs: Tensor, images: Tensor, counted: Tensor) -> float:
    """The share of the counted voxels' variance that is reconstructed: at most 1, below 0 if the mean is better.

    The arguments are those of `reconstruction_error`.
    """
    mean = (images * counted).sum() / (counted.sum() * images.shape[1]).clamp(min=1)
    variance = reconstruction_error(mean.expand_as(images), images, counted).clamp(min=1e-8)
    return 1 - float(reconstruction_error(outputs, images, counted) / variance)
