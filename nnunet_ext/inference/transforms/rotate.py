"""Rotations by a few degrees in a plane, applied to the whole preprocessed volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_ext.inference.transforms.in_plane import field_of_view, resampled
from nnunet_ext.inference.transforms.plane import IN_PLANE, Plane


@dataclass(frozen=True)
class Rotation:
    """Rotates a volume around its centre, in mm.

    Attributes:
        degrees: the angle, from the first axis of the plane to the second.
        plane: the two axes that turn.
        spacing_mm: spacing along these axes.
    """

    degrees: float
    plane: Plane = IN_PLANE
    spacing_mm: tuple[float, float] = (1.0, 1.0)
    exact = False

    @property
    def name(self) -> str:
        """See `Transform`: "rotate10", "rotate-10"."""
        return f"rotate{self.degrees:g}"

    def apply(self, volume: Tensor) -> Tensor:
        """See `Transform`."""
        return resampled(volume, self._matrix(-self.degrees), self.plane)

    def undo(self, logits: Tensor, volume: Tensor) -> Tensor:
        """See `Transform`."""
        return resampled(logits, self._matrix(self.degrees), self.plane)

    def field_of_view(self, shape: Sequence[int], device: torch.device) -> Tensor | None:
        """See `Transform`."""
        return field_of_view(shape, self._matrix(self.degrees), self.plane, device)

    def _matrix(self, degrees: float) -> Tensor:
        """Offsets in voxels to mm, rotated, and back to voxels."""
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        first, second = self.spacing_mm
        return torch.tensor([[cosine, -sine * second / first], [sine * first / second, cosine]])
