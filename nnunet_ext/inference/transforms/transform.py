"""What a test-time transform is."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Transform(Protocol):
    """Changes what a network sees, and undoes the change on its logits."""

    @property
    def name(self) -> str:
        """How it is called in a member's name, for example "flip-01"."""

    @property
    def exact(self) -> bool:
        """Whether `undo` restores each voxel without interpolation.

        Exact transforms act on patches and share their batches; others act on the whole preprocessed volume.
        """

    def apply(self, volume: Tensor) -> Tensor:
        """(channels, *spatial) to what the network sees; may be the volume itself."""

    def undo(self, logits: Tensor, volume: Tensor) -> Tensor:
        """The network's logits back on the voxels of the volume.

        Args:
            logits: (C, *spatial) of the transformed volume.
            volume: (channels, *spatial) before the transform.

        Returns:
            (C, *spatial) with the spatial shape of `volume`; may be the logits themselves.
        """
