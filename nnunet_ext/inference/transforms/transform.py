"""The protocol of a test-time transform."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


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
        """Transforms the network's input (channels, *spatial); may return the volume itself."""

    def undo(self, logits: Tensor, volume: Tensor) -> Tensor:
        """Maps the network's logits back to the voxels of the original volume.

        Args:
            logits: (C, *spatial), the logits of the transformed volume.
            volume: (channels, *spatial), the volume before the transform.

        Returns:
            (C, *spatial) with the spatial shape of `volume`; may be `logits` itself.
        """
