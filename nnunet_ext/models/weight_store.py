"""Keeps the members' weights on the network's device and swaps them in by pointer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from nnunet_ext.architectures.over_volumes import over_volumes
from nnunet_ext.files.checkpoints import cast_weights
from nnunet_ext.machine.available_memory import available_memory_bytes
from nnunet_ext.models.members import Member

Weights = dict[str, torch.Tensor]

SHARE_OF_MEMORY = 0.25  # share of the available memory for weights that are kept between cases


class WeightStore:
    """Keeps members' weights between cases within a memory budget; the others are read again for every case.

    On a CPU, weights in single precision are memory-mapped from their files, so that the operating system can drop
    their pages.

    Args:
        device: device of the network.
        dtype: number type that the network runs with.
        budget_bytes: the most memory that kept weights may take.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, budget_bytes: int) -> None:
        self.device = device
        self.dtype = dtype
        self.budget_bytes = budget_bytes
        self.kept_bytes = 0
        self._kept: dict[Path, Weights] = {}

    def of(self, member: Member) -> Weights:
        """The weights of a member; dropout draws of one checkpoint share its weights."""
        if member.path in self._kept:
            return self._kept[member.path]
        weights = on_device(cast_weights(member.weights(), self.dtype), self.device)
        size = unique_bytes(weights)
        if self.kept_bytes + size <= self.budget_bytes:
            self._kept[member.path] = weights
            self.kept_bytes += size
        return weights


def default_budget_bytes(device: torch.device) -> int:
    """A quarter of the free memory of the device."""
    if device.type == "cuda":
        return int(SHARE_OF_MEMORY * torch.cuda.mem_get_info(device)[0])
    return int(SHARE_OF_MEMORY * (available_memory_bytes() or 0))


def on_device(weights: Weights, device: torch.device) -> Weights:
    """The weights moved to a device; tensors that share memory still share it there."""
    if device.type == "cpu":
        return weights
    moved: dict[object, torch.Tensor] = {}
    result = {}
    for name, tensor in weights.items():
        view = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if view not in moved:
            moved[view] = tensor.to(device)
        result[name] = moved[view]
    return result


def unique_bytes(weights: Weights) -> int:
    """Memory of the weights, each storage counted once, because nnU-Net lists most tensors under two names."""
    blocks = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in weights.values()}
    return sum(blocks.values())


def point_at(network: nn.Module, weights: Weights) -> None:
    """Points all parameters and buffers of a network at the given tensors, without copying them.

    Raises:
        RuntimeError: if names or shapes differ from the network's.
    """
    own = network.state_dict(keep_vars=True)
    names = [*own, *(name for name in weights if name not in own)]
    wrong = [name for name in names if shape_in(own, name) != shape_in(weights, name)]
    if wrong:
        raise RuntimeError(
            f"names or shapes of {len(wrong)} tensors differ, the first of them {wrong[0]}: "
            f"{shape_in(own, wrong[0])} in the network, {shape_in(weights, wrong[0])} in the file"
        )
    for name, tensor in own.items():
        tensor.data = weights[name]
    over_volumes(network).weights_changed()


def shape_in(weights: Weights, name: str) -> str:
    """The shape of a tensor as text; "absent" if there is no tensor of this name."""
    return str(tuple(weights[name].shape)) if name in weights else "absent"
