"""Monte Carlo dropout: each draw is the network with a fixed set of dropped channels (arXiv 1506.02142)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd


class DrawnDropout(nn.Module):
    """Replaces a dropout layer in prediction: drops the same channels of all inputs, or nothing.

    One draw is one network, so the mask belongs to the draw and not to an input: all tiles, slices, transforms and
    cases share it. Whole channels are dropped, even if the layer dropped single elements in training, because a mask
    of elements would be tied to positions in the patch.

    Args:
        probability: probability that a channel is dropped; kept channels are scaled by 1 / (1 - probability).
        number: number of the layer in its network, so that every layer draws its own mask.
    """

    def __init__(self, probability: float, number: int) -> None:
        super().__init__()
        self.probability = probability
        self.number = number
        self.seed: int | None = None
        self._masks: dict[tuple[int, int], torch.Tensor] = {}

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Multiplies (B, C, *spatial) by the mask of the draw; returns it unchanged without a draw."""
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
    """Replaces a network's dropout layers by `DrawnDropout`, in place; names of weights are unchanged."""
    replaced: dict[nn.Module, nn.Module] = {}  # nnU-Net's blocks list each layer twice
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, _DropoutNd) and child.p > 0:
                drawn = replaced.setdefault(child, DrawnDropout(child.p, len(replaced)))
                setattr(module, name, drawn)
    return network


def drawn_layers(network: nn.Module) -> list[DrawnDropout]:
    """The dropout layers of a network that `with_drawn_dropout` replaced."""
    return [module for module in network.modules() if isinstance(module, DrawnDropout)]


def draw(network: nn.Module, seed: int | None) -> None:
    """Makes the network the draw of this seed, the same for every call; None disables dropout."""
    for layer in drawn_layers(network):
        layer.seed = seed
