"""The protocol by which inference runs a network over a volume that is larger than its patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn


class OverVolumes(Protocol):
    """How a network runs over a volume.

    A network that cannot simply be applied tile by tile returns such an object from its method `over_volumes()`. All
    others run as `SingleNetwork`.

    Attributes:
        classifiers: networks that run over the tiles of the volume separately, each mapping (B, channels, *patch) to
            logits (B, C, *patch).
        may_be_compiled: whether `torch.compile` may be applied to each classifier.
        needs_whole_volume: whether `combine` depends on more than one voxel, so that no tile may be left out.
    """

    classifiers: Sequence[nn.Module]
    may_be_compiled: bool
    needs_whole_volume: bool

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        """Combines the classifiers' logits of the volume, each (C, *spatial), into the network's, (C, *spatial).

        Padding has been removed: every slice is part of the image.
        """

    def weights_changed(self) -> None:
        """Called after the network's tensors were replaced without `load_state_dict`."""


class SingleNetwork:
    """An ordinary network: its logits of a volume are blended from those of its tiles."""

    may_be_compiled = True
    needs_whole_volume = False

    def __init__(self, network: nn.Module) -> None:
        self.classifiers: Sequence[nn.Module] = (network,)

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        """See `OverVolumes`; returns the logits of the only classifier."""
        return logits[0]

    def weights_changed(self) -> None:
        """See `OverVolumes`; there is nothing to update."""


def over_volumes(network: nn.Module) -> OverVolumes:
    """How a network runs over a volume: as its method `over_volumes` says if it has one, else as a single network."""
    own = getattr(network, "over_volumes", None)
    behaviour: OverVolumes = SingleNetwork(network) if own is None else own()
    return behaviour
