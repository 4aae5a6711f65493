"""Instance norms that a compiler fuses with the layers around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from nnunet_ext.architectures.channels_last import with_instance_norms

if TYPE_CHECKING:
    from nnunet_ext.architectures.channels_last import AnyInstanceNorm


class FusedInstanceNorm(nn.Module):
    """An instance norm with the same parameters as mean, variance and one multiply-add.

    Computed in single precision, whatever the type of the values; a compiler keeps that in registers.

    Args:
        norm: the norm whose weight, bias and epsilon are used.
    """

    def __init__(self, norm: AnyInstanceNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Normalises (B, C, *spatial): each channel of an image gets mean `bias` and standard deviation `weight`."""
        single = values.float()
        variance, mean = torch.var_mean(single, tuple(range(2, values.ndim)), correction=0, keepdim=True)
        shape = (1, -1, *[1] * (values.ndim - 2))
        scale = self.weight.float().reshape(shape) * (variance + self.eps).rsqrt()  # (B, C, 1, ...)
        shift = self.bias.float().reshape(shape) - mean * scale
        return torch.addcmul(shift, single, scale).to(values.dtype)


def with_fused_norms(network: nn.Module) -> nn.Module:
    """Replaces a network's instance norms by `FusedInstanceNorm`, in place; names of weights are unchanged."""
    return with_instance_norms(network, FusedInstanceNorm)
