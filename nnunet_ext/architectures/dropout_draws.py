"""Monte Carlo dropout: a network whose dropout stays on is a random draw of a network (Gal and Ghahramani 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd


def dropout_layers(network: nn.Module) -> list[_DropoutNd]:
    """The layers that drop something."""
    return [module for module in network.modules() if isinstance(module, _DropoutNd) and module.p > 0]


@contextmanager
def dropout_draw(network: nn.Module, seed: int | None, device: torch.device) -> Iterator[None]:
    """Turns dropout on, and nothing else, with random numbers of its own; off again afterwards.

    Args:
        network: in evaluation mode.
        seed: the same seed gives the same draw; None leaves dropout off.
        device: where the network runs.
    """
    if seed is None:
        yield
        return
    layers = dropout_layers(network)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for layer in layers:
            layer.train()
        try:
            yield
        finally:
            for layer in layers:
                layer.eval()
