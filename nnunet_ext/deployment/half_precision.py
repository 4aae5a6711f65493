"""Finds the layer of a network that half precision cannot hold, which makes a segmentation empty.

Values above 65504 are infinite in half precision, and the next norm makes all of its channel NaN. Each layer's output
is rounded as by an engine that computes in half precision and adds up products in single precision, as GPUs do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

LARGEST_HALF = torch.finfo(torch.float16).max
NORMS = (nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class HalfPrecision:
    """What half precision does to a network.

    Attributes:
        overflow: the first layer with a value that half precision cannot hold; None if there is none.
        largest: the largest value of a weight or an output in single precision.
        norms_in_single: norms whose input, squared, overflows: an engine must compute them in single precision, as
            torch does on GPUs.
        logits: (B, C, *patch), with every layer's output rounded.
    """

    overflow: str | None
    largest: float
    norms_in_single: tuple[str, ...]
    logits: torch.Tensor


@torch.no_grad()
def in_half_precision(network: nn.Module, patches: torch.Tensor) -> HalfPrecision:
    """Runs a network with the output of every layer rounded to half precision.

    Args:
        network: in single precision and evaluation mode, with the weights of a member.
        patches: (B, channels, *patch).
    """
    largest_outputs: dict[str, float] = {}
    norm_inputs: dict[str, float] = {}
    with hooks(network, partial(watch, largest_outputs, norm_inputs)):
        network(patches)
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    weights = {
        name: float(values.abs().max())
        for name, values in tensors.items()
        if values.is_floating_point() and values.numel()
    }
    everything = weights | largest_outputs
    with hooks(network, round_output):
        logits = network(patches).half().float()
    return HalfPrecision(
        overflow=next((name for name, value in everything.items() if not value <= LARGEST_HALF), None),
        largest=max(everything.values()),
        norms_in_single=tuple(name for name, value in norm_inputs.items() if value**2 > LARGEST_HALF),
        logits=logits,
    )


def watch(
    largest_outputs: dict[str, float],
    norm_inputs: dict[str, float],
    name: str,
    layer: nn.Module,
    inputs: Sequence[Any],
    output: torch.Tensor,
) -> None:
    """Keeps the largest value of a layer's output, and of the input of a norm."""
    largest_outputs[name] = max(largest_outputs.get(name, 0.0), float(output.abs().max()))
    if isinstance(layer, NORMS):
        norm_inputs[name] = max(norm_inputs.get(name, 0.0), float(inputs[0].abs().max()))


def round_output(name: str, layer: nn.Module, inputs: Sequence[Any], output: torch.Tensor) -> torch.Tensor:
    """A layer's output as half precision holds it."""
    return output.half().float()


@contextmanager
def hooks(network: nn.Module, hook: Any) -> Iterator[None]:
    """Calls `hook(name, layer, inputs, output)` after every layer that returns one tensor."""

    def called(name: str, layer: nn.Module, inputs: Sequence[Any], output: Any) -> Any:
        return hook(name, layer, inputs, output) if isinstance(output, torch.Tensor) else None

    handles = [
        layer.register_forward_hook(partial(called, name))
        for name, layer in network.named_modules()
        if not any(layer.children())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
