"""Rotations by multiples of 90 degrees in a plane: voxels move, nothing is interpolated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_ext.inference.transforms.plane import IN_PLANE, Plane


@dataclass(frozen=True)
class Rot90:
    """Rotates a volume whose two sides in the plane are equal.

    Attributes:
        quarters: number of quarter turns, 1 to 3.
        plane: the two axes that turn.
    """

    quarters: int
    plane: Plane = IN_PLANE
    exact = True

    @property
    def name(self) -> str:
        """See `Transform`: "rot90", "rot180" or "rot270"."""
        return f"rot{90 * self.quarters}"

    def apply(self, volume: Tensor) -> Tensor:
        """See `Transform`."""
        return torch.rot90(volume, self.quarters, self.plane)

    def undo(self, logits: Tensor, volume: Tensor) -> Tensor:
        """See `Transform`."""
        return torch.rot90(logits, -self.quarters, self.plane)

    def field_of_view(self, shape: Sequence[int], device: torch.device) -> Tensor | None:
        """See `Transform`: a square stays within itself."""
        return None
