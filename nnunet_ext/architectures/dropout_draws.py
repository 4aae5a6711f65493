"""Monte Carlo dropout: a network with a fixed set of dropped channels is a draw of a network (arXiv 1506.02142)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd


class DrawnDropout(nn.Module):
    """Stands in for a dropout layer at prediction: nothing is dropped, or the same channels in all inputs.

    One draw is one network. So a mask belongs to the draw and not to an input: tiles, slices, transforms and cases of
    a draw share it. Whole channels are dropped, also where the layer dropped single elements in training, because a
    mask of elements would be tied to places in the patch.

    Args:
        probability: of a channel to be dropped; those that are kept are scaled by 1 / (1 - probability).
        number: of the layer in its network, so that layers draw masks of their own.
    """

    def __init__(self, probability: float, number: int) -> None:
        super().__init__()
        self.probability = probability
        self.number = number
        self.seed: int | None = None
        self._masks: dict[tuple[int, int], torch.Tensor] = {}

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) to the same, multiplied channel by channel."""
        if self.seed is None:
            return values
        mask = self.mask(values.shape[1], self.seed).to(values.device, values.dtype)
        return values * mask.reshape(1, -1, *(1,) * (values.ndim - 2))  # (1, C, 1, ...)

    def mask(self, channels: int, seed: int) -> torch.Tensor:
        """(C): 0 for a dropped channel, else 1 / (1 - probability); the same on every device."""
        if (channels, seed) not in self._masks:
            state = int(np.random.SeedSequence([seed, self.number]).generate_state(1)[0])
            uniform = torch.rand(channels, generator=torch.Generator().manual_seed(state))
            self._masks[channels, seed] = (uniform >= self.probability) / (1 - self.probability)
        return self._masks[channels, seed]


def with_drawn_dropout(network: nn.Module) -> nn.Module:
    """The network itself, its dropout layers replaced by `DrawnDropout`; dropout has no weights, so names stay."""
    replaced: dict[nn.Module, nn.Module] = {}  # nnU-Net's blocks list each layer twice
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, _DropoutNd) and child.p > 0:
                drawn = replaced.setdefault(child, DrawnDropout(child.p, len(replaced)))
                setattr(module, name, drawn)
    return network


def drawn_layers(network: nn.Module) -> list[DrawnDropout]:
    """The layers of a network that can draw."""
    return [module for module in network.modules() if isinstance(module, DrawnDropout)]


def draw(network: nn.Module, seed: int | None) -> None:
    """From now on the network is the draw of this seed, the same one at every call; None drops nothing."""
    for layer in drawn_layers(network):
        layer.seed = seed
