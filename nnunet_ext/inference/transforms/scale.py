"""Enlarging and shrinking in a plane, applied to the whole preprocessed volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_ext.inference.transforms.in_plane import field_of_view, resampled
from nnunet_ext.inference.transforms.plane import IN_PLANE, Plane


@dataclass(frozen=True)
class Scaling:
    """Scales a volume around its centre.

    Attributes:
        factor: above 1, anatomy appears larger.
        plane: the two axes that are scaled.
    """

    factor: float
    plane: Plane = IN_PLANE
    exact = False

    @property
    def name(self) -> str:
        """See `Transform`: "scale0.95", "scale1.05"."""
        return f"scale{self.factor:g}"

    def apply(self, volume: Tensor) -> Tensor:
        """See `Transform`."""
        return resampled(volume, torch.eye(2) / self.factor, self.plane)

    def undo(self, logits: Tensor, volume: Tensor) -> Tensor:
        """See `Transform`."""
        return resampled(logits, torch.eye(2) * self.factor, self.plane)

    def field_of_view(self, shape: Sequence[int], device: torch.device) -> Tensor | None:
        """See `Transform`."""
        return field_of_view(shape, torch.eye(2) * self.factor, self.plane, device)
