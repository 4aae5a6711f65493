"""What inference may ask of a network: how it runs over a whole volume that is larger than its patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn


class OverVolumes(Protocol):
    """How a network runs over a volume.

    A network that is more than one function of a patch returns an object of this form from its method
    `over_volumes()`. All others run as `SingleNetwork`.

    Attributes:
        classifiers: networks that go over the volume in tiles, each on its own: (B, channels, *patch) to logits
            (B, C, *patch).
        may_be_compiled: whether `torch.compile` may be applied to each of them.
        needs_whole_volume: whether `combine` looks beyond a voxel, so that no tile may be left out.
    """

    classifiers: Sequence[nn.Module]
    may_be_compiled: bool
    needs_whole_volume: bool

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        """The classifiers' logits of the volume, each (C, *spatial), to the network's own, (C, *spatial).

        Padding has been cut off: every slice is part of the image.
        """

    def weights_changed(self) -> None:
        """Called after the network's tensors were exchanged without `load_state_dict`."""


class SingleNetwork:
    """A network as nnU-Net knows it: its logits of a volume are blended from those of its tiles."""

    may_be_compiled = True
    needs_whole_volume = False

    def __init__(self, network: nn.Module) -> None:
        self.classifiers: Sequence[nn.Module] = (network,)

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        """See `OverVolumes`; there is one classifier."""
        return logits[0]

    def weights_changed(self) -> None:
        """See `OverVolumes`; nothing depends on the weights."""


def over_volumes(network: nn.Module) -> OverVolumes:
    """How a network runs over a volume: as it says itself, or as a single network."""
    own = getattr(network, "over_volumes", None)
    behaviour: OverVolumes = SingleNetwork(network) if own is None else own()
    return behaviour
