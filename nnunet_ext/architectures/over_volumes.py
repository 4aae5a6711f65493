"""The protocol by which inference runs a network over a volume that is larger than its patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, NoReturn, Protocol

from torch import Tensor, nn


class Memory(NamedTuple):
    """What a mixture remembers of a volume; K is the number of classifiers.

    Attributes:
        uncertainty: U, (K, *spatial): how decided each classifier is, the same in all slices.
        weights: W, (K, *spatial): the weight of each classifier, which sums to 1 over K.
    """

    uncertainty: Tensor
    weights: Tensor


class OverVolumes(Protocol):
    """How a network runs over a volume.

    A network that cannot simply be applied tile by tile returns such an object from its method `over_volumes()`. All
    others run as `SingleNetwork`.

    Attributes:
        classifiers: networks that run over the tiles of the volume separately, each mapping (B, channels, *patch) to
            logits (B, C, *patch).
        may_be_compiled: whether `torch.compile` may be applied to each classifier.
        needs_whole_volume: whether `combine` depends on more than one voxel, so that no tile may be left out.
        has_memory: whether the classifiers are weighted, so that `memory` can be asked for.
    """

    classifiers: Sequence[nn.Module]
    may_be_compiled: bool
    needs_whole_volume: bool
    has_memory: bool

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        """Combines the classifiers' logits of the volume, each (C, *spatial), into the network's, (C, *spatial).

        Padding has been removed: every slice is part of the image.
        """

    def memory(self, logits: Sequence[Tensor]) -> Memory:
        """What `combine` weights the classifiers by; arguments as for `combine`."""

    def weights_changed(self) -> None:
        """Called after the network's tensors were replaced without `load_state_dict`."""


class SingleNetwork:
    """An ordinary network: its logits of a volume are blended from those of its tiles."""

    may_be_compiled = True
    needs_whole_volume = False
    has_memory = False

    def __init__(self, network: nn.Module) -> None:
        self.classifiers: Sequence[nn.Module] = (network,)

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        """See `OverVolumes`; returns the logits of the only classifier."""
        return logits[0]

    def memory(self, logits: Sequence[Tensor]) -> NoReturn:
        """See `OverVolumes`; there is none.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("A single network has no memory. Ask has_memory first.")

    def weights_changed(self) -> None:
        """See `OverVolumes`; there is nothing to update."""


def over_volumes(network: nn.Module) -> OverVolumes:
    """How a network runs over a volume: as its method `over_volumes` says if it has one, else as a single network."""
    own = getattr(network, "over_volumes", None)
    behaviour: OverVolumes = SingleNetwork(network) if own is None else own()
    return behaviour
