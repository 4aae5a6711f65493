"""The protocol of a test-time transform."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

# Receives a transform, and a member's logits (C, *spatial) under it, back on the image; it must not modify them.
Observer = Callable[["Transform", Tensor], None]


class Transform(Protocol):
    """Transforms the input of a network, and undoes the transform on its logits."""

    @property
    def name(self) -> str:
        """The transform's name within the name of a member, for example "flip-01"."""

    @property
    def exact(self) -> bool:
        """Whether `undo` restores each voxel without interpolation.

        Exact transforms act on patches and share their batches; others act on the whole preprocessed volume.
        """

    def apply(self, volume: Tensor) -> Tensor:
        """Transforms the network's input (channels, *spatial) to the same shape; may return the volume itself."""

    def undo(self, logits: Tensor, volume: Tensor) -> Tensor:
        """Maps the network's logits back to the voxels of the original volume.

        Args:
            logits: (C, *spatial), the logits of the transformed volume.
            volume: (channels, *spatial), the volume before the transform.

        Returns:
            (C, *spatial) with the spatial shape of `volume`; may be `logits` itself.
        """

    def field_of_view(self, shape: Sequence[int], device: torch.device) -> Tensor | None:
        """How much the transform's vote counts at each voxel of the original volume.

        Args:
            shape: spatial shape of the volume.
            device: where the result is needed.

        Returns:
            (*spatial) in [0, 1], where 0 is a voxel that the network did not see; None if it saw all of them, as
            with every exact transform.
        """
