"""Mirroring along the axes that were mirrored in training: nnU-Net's own test-time augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_ext.architectures.mirroring import flip_name, mirror_flips


@dataclass(frozen=True)
class Flip:
    """Mirrors a volume.

    Attributes:
        axes: the spatial axes to mirror, from 0; empty is the identity.
    """

    axes: tuple[int, ...] = ()
    exact = True

    @property
    def name(self) -> str:
        """See `Transform`: "flip-none", "flip-0", "flip-02", ..."""
        return flip_name(self.axes)

    def apply(self, volume: Tensor) -> Tensor:
        """See `Transform`."""
        return torch.flip(volume, [axis + 1 for axis in self.axes]) if self.axes else volume  # axis 0 is the channel

    def undo(self, logits: Tensor, volume: Tensor) -> Tensor:
        """See `Transform`; mirroring is its own inverse."""
        return self.apply(logits)

    def field_of_view(self, shape: Sequence[int], device: torch.device) -> Tensor | None:
        """See `Transform`: mirrored copies show every voxel."""
        return None


IDENTITY = Flip()


def flips(mirror_axes: Sequence[int] | None, *, enabled: bool = True) -> list[Flip]:
    """All combinations of mirror axes, the identity first, in stock nnU-Net's order.

    Args:
        mirror_axes: spatial axes from 0, as a checkpoint stores them; None or empty gives the identity alone.
        enabled: False gives the identity alone (`--tta none`).
    """
    return [Flip(axes) for axes in mirror_flips(mirror_axes, enabled=enabled)]
