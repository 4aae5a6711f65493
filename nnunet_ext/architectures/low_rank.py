"""Convolutions with a low-rank change of their weights, which is all that trains (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

ADAPTERS = ("down", "up")


class LowRankConv(nn.Module):
    """A convolution with the weights W + B·A: `up` is B (outputs, rank), `down` is A (rank, inputs · kernel).

    B begins with zeros, so that a new adapter changes nothing. The state dict is that of a plain convolution with the
    merged weights. Loading one sets W and empties the adapter; `adapter_state` keeps W, A and B apart.
    """

    weight: Tensor
    down: nn.Parameter
    up: nn.Parameter

    def add_adapter(self, rank: int) -> None:
        """Adds an adapter that changes nothing yet; with rank 0 it never does."""
        outputs, inputs = len(self.weight), self.weight[0].numel()
        self.down = nn.Parameter(self.weight.new_empty((rank, inputs)))
        self.up = nn.Parameter(self.weight.new_zeros((outputs, rank)))
        bound = 1 / math.sqrt(inputs)  # as torch initialises a convolution with as many inputs
        nn.init.uniform_(self.down, -bound, bound)
        self._merged: weakref.ref[Tensor] | None = None
        self._merged_from: tuple[int, ...] = ()

    def adapted_weight(self) -> Tensor:
        """W + B·A in the shape of W, in the precision of W under autocast as well."""
        with torch.autocast(self.weight.device.type, enabled=False):
            return self.weight + (self.up @ self.down).view_as(self.weight)

    def forward(self, image: Tensor) -> Tensor:
        """The convolution of (B, inputs, *spatial) with the adapted weights."""
        return self._conv_forward(image, self.adapted_weight(), self.bias)  # type: ignore[operator]

    def merged_weight(self) -> Tensor:
        """The adapted weights without their history; one tensor for all names under which a network lists them."""
        if not bool(self.up.any()):
            return self.weight.detach()
        parts = (self.weight, self.down, self.up)
        now = tuple(number for part in parts for number in (part.data_ptr(), part._version))
        merged = self._merged() if self._merged is not None else None
        if merged is None or now != self._merged_from:
            merged = self.adapted_weight().detach()
            self._merged, self._merged_from = weakref.ref(merged), now
        return merged

    def adapter_state(self) -> dict[str, Tensor]:
        """W, A and B, for a resumed training."""
        return {"weight": self.weight.detach(), **{name: getattr(self, name).detach() for name in ADAPTERS}}

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `adapter_state` returned."""
        with torch.no_grad():
            for name in ("weight", *ADAPTERS):
                getattr(self, name).copy_(state[name])

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ADAPTERS:
            del destination[prefix + name]
        destination[prefix + "weight"] = self.merged_weight()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any, **keywords: Any
    ) -> None:  # torch passes the lists of missing and unexpected keys on
        empty = {prefix + "down": self.down.detach(), prefix + "up": torch.zeros_like(self.up)}
        super()._load_from_state_dict({**state_dict, **empty}, prefix, *arguments, **keywords)


class LowRankConv2d(LowRankConv, nn.Conv2d):
    """`LowRankConv` in 2D."""


class LowRankConv3d(LowRankConv, nn.Conv3d):
    """`LowRankConv` in 3D."""


ADAPTED: dict[type[nn.Module], type[LowRankConv]] = {nn.Conv2d: LowRankConv2d, nn.Conv3d: LowRankConv3d}


def add_adapters(module: nn.Module, rank: int) -> int:
    """Gives every convolution inside a module an adapter, in place; transposed ones stay as they are.

    A convolution that is listed under several names stays one convolution.

    Args:
        module: such as the encoder of a U-Net.
        rank: r, at least 0.

    Returns:
        Number of adapted convolutions.
    """
    places = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child) in ADAPTED
    ]
    adapted: dict[int, LowRankConv] = {}
    for parent, name, conv in places:
        if id(conv) not in adapted:
            adapted[id(conv)] = low_rank(conv, rank)
        setattr(parent, name, adapted[id(conv)])
    return len(adapted)


def low_rank(conv: Any, rank: int) -> LowRankConv:
    """A convolution with the weights of `conv`, which it shares, and an adapter."""
    adapted: Any = ADAPTED[type(conv)](
        *(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation),
        groups=conv.groups,
        bias=conv.bias is not None,
        padding_mode=conv.padding_mode,
        device="meta",
    )
    adapted.weight, adapted.bias = conv.weight, conv.bias
    adapted.add_adapter(rank)
    return adapted


def low_rank_convs(module: nn.Module) -> dict[str, LowRankConv]:
    """The convolutions with adapters inside a module, each under its first name."""
    return {name: found for name, found in module.named_modules() if isinstance(found, LowRankConv)}
