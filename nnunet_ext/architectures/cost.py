"""Parameters and operations of a network, counted without memory for its weights and features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class NetworkCost:
    """What a network costs.

    Attributes:
        parameters: number of parameters; shared ones count once.
        operations: additions and multiplications of the convolutions and matrix products of one forward pass.
    """

    parameters: int
    operations: int


def network_cost(network: nn.Module, channels: int, patch_size: Sequence[int]) -> NetworkCost:
    """The cost of a network in evaluation mode for one image of the size of a patch.

    Args:
        network: maps (1, channels, *patch_size) to its output. Its weights are gone afterwards.
        channels: number of image channels.
        patch_size: spatial shape of the image.
    """
    parameters = sum(parameter.numel() for parameter in network.parameters())
    without_data = network.to("meta").eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        without_data(torch.empty((1, channels, *patch_size), device="meta"))
    return NetworkCost(parameters, counter.get_total_flops())
