"""The weights that are adapted: scale and shift of the norm layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from nnunet_ext.architectures.channels_last import ChannelsLastInstanceNorm
from nnunet_ext.architectures.over_volumes import over_volumes

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, ChannelsLastInstanceNorm)


def affine_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Scale and shift of every norm layer of a network, each once; empty if its norms have none."""
    affine = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, NORMS)
        for parameter in module.parameters(recurse=False)
    }
    return [parameter for parameter in network.parameters() if id(parameter) in affine]


@contextmanager
def fresh_copies(network: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Lends a network copies of its norms' scales and shifts, which alone take gradients.

    After the context the network has its own tensors again, with the values that they had: nothing is computed back.
    """
    parameters = affine_parameters(network)
    own = [parameter.data for parameter in parameters]
    took_gradients = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    try:
        network.requires_grad_(False)
        for parameter in parameters:
            parameter.data = parameter.data.clone()
            parameter.requires_grad_(True)
        yield parameters
    finally:
        for parameter, tensor in zip(parameters, own, strict=True):
            parameter.data, parameter.grad = tensor, None
        for parameter, before in took_gradients:
            parameter.requires_grad_(before)
        over_volumes(network).weights_changed()
