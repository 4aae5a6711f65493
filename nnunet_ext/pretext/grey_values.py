"""Random changes of grey values that keep their order, or reverse it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

KNOTS = 1001
PERCENTILES = (0.01, 0.99)
MOST_VOXELS = 100_000  # for percentiles
SMALLEST_RANGE = 1e-6


@dataclass(frozen=True)
class GreyRange:
    """The range of a channel's values, robust against outliers.

    Attributes:
        black: (channels,), the first percentile.
        white: (channels,), the 99th percentile.
    """

    black: Tensor
    white: Tensor

    def normalised(self, image: Tensor) -> Tensor:
        """(channels, *spatial), 0 where black and 1 where white, beyond that for outliers."""
        return (image - self._like(self.black, image)) / self._span(image)

    def restored(self, normalised: Tensor) -> Tensor:
        """The reverse of `normalised`."""
        return normalised * self._span(normalised) + self._like(self.black, normalised)

    def _span(self, image: Tensor) -> Tensor:
        return self._like((self.white - self.black).clamp(min=SMALLEST_RANGE), image)

    @staticmethod
    def _like(values: Tensor, image: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * (image.ndim - 1))


def grey_range(image: Tensor, generator: torch.Generator) -> GreyRange:
    """The range of each channel of an image (channels, *spatial), from random voxels of a large one."""
    values = image.flatten(1).float()
    if values.shape[1] > MOST_VOXELS:
        chosen = torch.randint(values.shape[1], (MOST_VOXELS,), generator=generator)
        values = values[:, chosen.to(values.device)]
    black, white = torch.quantile(values, values.new_tensor(PERCENTILES), dim=1)
    return GreyRange(black, white)


def bezier_curve(controls: Tensor) -> Tensor:
    """The cubic Bézier curve from (0, 0) to (1, 1), which rises along both axes.

    Args:
        controls: (2, 2), the inner control points as rows of x and y, all between 0 and 1.

    Returns:
        (2, KNOTS): x and y.
    """
    t = torch.linspace(0, 1, KNOTS, dtype=torch.float64)
    first, second = controls.double()[..., None]
    return 3 * (1 - t).square() * t * first + 3 * (1 - t) * t.square() * second + t**3


def random_curve(generator: torch.Generator) -> Tensor:
    """A Bézier curve with uniform control points, (2, KNOTS); half of the curves fall from (0, 1) to (1, 0)."""
    x, y = bezier_curve(torch.rand((2, 2), generator=generator))
    falls = float(torch.rand((), generator=generator)) < 0.5
    return torch.stack((x, y.flip(0) if falls else y))


def through_curve(values: Tensor, curve: Tensor) -> Tensor:
    """Values from 0 to 1 through a curve; those outside go on beyond its ends with slope 1 or -1.

    Cutting them off instead would make all outliers alike.

    Args:
        values: any shape.
        curve: (2, knots), x rising from 0 to 1, and y.
    """
    x, y = curve.to(device=values.device, dtype=values.dtype)
    within = values.clamp(0, 1)
    right = torch.searchsorted(x, within.contiguous(), right=True).clamp(1, len(x) - 1)
    share = ((within - x[right - 1]) / (x[right] - x[right - 1]).clamp(min=1e-12)).clamp(0, 1)
    direction = torch.sign(y[-1] - y[0])
    return torch.lerp(y[right - 1], y[right], share) + direction * (values - within)
