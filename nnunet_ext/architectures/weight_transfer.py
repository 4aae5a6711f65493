"""Copies pre-trained weights into a U-Net: finds each tensor by its name, adapts its shape, and says what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from torch import Tensor, nn

WRAPPERS = ("module.", "_orig_mod.", "architecture.")  # DDP, torch.compile, and some networks of nnssl
ENCODER = "encoder."
ENCODER_OF_DECODER = "decoder.encoder."  # nnU-Net's decoder holds the encoder as well
SEGMENTATION_LAYERS = ".seg_layers."
KERNEL_AXES_FROM = 2  # a kernel is (outputs, inputs, *spatial)


@dataclass(frozen=True)
class TransferReport:
    """What became of each tensor of the network, under its first name, and of the file.

    Attributes:
        unchanged: tensors that were copied as they are.
        adapted: tensors that were copied after a change of shape, and the change.
        left: tensors that keep their initial weights, and why; only those that were asked for.
        unused: tensors of the file that no tensor of the network took.
    """

    unchanged: tuple[str, ...]
    adapted: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    def arrived(self, prefix: str) -> int:
        """How many tensors whose name begins with the prefix were copied."""
        return sum(name.startswith(prefix) for name in (*self.unchanged, *self.adapted))

    def wanted(self, prefix: str) -> int:
        """How many tensors whose name begins with the prefix were asked for."""
        return self.arrived(prefix) + sum(name.startswith(prefix) for name in self.left)


def input_block(encoder: nn.Module) -> ConvDropoutNormReLU:
    """The block of nnU-Net's encoder that reads the image: of the stem, or of the first stage.

    Raises:
        ValueError: if the encoder has no block of nnU-Net.
    """
    for module in encoder.modules():
        if isinstance(module, ConvDropoutNormReLU):
            return module
    raise ValueError(f"The encoder must be made of nnU-Net's blocks; found none in {type(encoder).__name__}.")


def transfer_weights(network: Any, weights: Mapping[str, Tensor], *, with_decoder: bool = False) -> TransferReport:
    """Copies the weights of a checkpoint into a U-Net, in place.

    nnU-Net lists most tensors under several names. Where the file's differ (SparK-style pre-training replaces `conv`
    and `all_modules.0` by two modules and trains one), the trained one is taken: that of `all_modules`, and that of
    `encoder` before that of `decoder.encoder`.

    Args:
        network: a U-Net with nnU-Net's encoder and decoder.
        weights: `network_weights` of a checkpoint; names may have the prefixes of wrappers.
        with_decoder: whether the decoder is copied as well, all but its segmentation layers.

    Raises:
        ValueError: if a tensor that would be copied has NaN or Inf.
    """
    stored = without_wrappers(weights)
    image_kernel = input_block(network.encoder).conv.weight
    unchanged: list[str] = []
    adapted: dict[str, str] = {}
    left: dict[str, str] = {}
    used: set[str] = set()
    for names, tensor in tensors_by_name(network):
        used.update(names)
        name = names[0]
        if SEGMENTATION_LAYERS in name or not (name.startswith(ENCODER) or with_decoder):
            continue
        source = trained_name(names, stored)
        if source is None:
            left[name] = "not in the file"
            continue
        fitted, change = fitted_to(stored[source], tensor, reads_image=tensor is image_kernel)
        if fitted is None:
            left[name] = change
            continue
        if not bool(fitted.isfinite().all()):
            raise ValueError(
                f"Pre-trained weights must be finite; found NaN or Inf in {source}. Use another checkpoint."
            )
        with torch.no_grad():
            tensor.copy_(fitted)
        if change:
            adapted[name] = change
        else:
            unchanged.append(name)
    unused = tuple(name for name in stored if name not in used)
    return TransferReport(tuple(unchanged), adapted, left, unused)


def without_wrappers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names of the plain network."""
    plain: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        while name.startswith(WRAPPERS):
            name = name.partition(".")[2]
        plain[name] = tensor
    return plain


def tensors_by_name(network: nn.Module) -> list[tuple[list[str], Tensor]]:
    """Each parameter and buffer of the state dict once, with all its names, those of the encoder first."""
    listed = network.state_dict().keys()  # leaves out what is not saved, such as adapters
    names: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    for found in (network.named_parameters, network.named_buffers):
        for name, tensor in found(remove_duplicate=False):
            if name in listed:
                names.setdefault(id(tensor), []).append(name)
                tensors[id(tensor)] = tensor
    return [
        (sorted(names[key], key=lambda name: name.startswith(ENCODER_OF_DECODER)), tensors[key]) for key in tensors
    ]


def trained_name(names: list[str], stored: Mapping[str, Tensor]) -> str | None:
    """The name under which a file stores the trained tensor, or None if it has none of the names."""
    preferred = sorted(names, key=lambda name: (name.startswith(ENCODER_OF_DECODER), "all_modules" not in name))
    return next((name for name in preferred if name in stored), None)


def fitted_to(stored: Tensor, target: Tensor, *, reads_image: bool) -> tuple[Tensor | None, str]:
    """A stored tensor in the shape of the network's, and what was changed; None and the reason if it does not fit.

    Args:
        stored: the file's tensor.
        target: the network's.
        reads_image: whether it is the kernel that reads the image's channels.
    """
    found = f"{tuple(stored.shape)} in the file, {tuple(target.shape)} in the network"
    if stored.shape == target.shape:
        return stored, ""
    if stored.ndim != target.ndim or stored.ndim <= KERNEL_AXES_FROM or len(stored) != len(target):
        return None, found
    fitted, changes = stored, []
    if stored.shape[1] != target.shape[1]:
        if not reads_image:
            return None, found
        fitted = over_channels(fitted, target.shape[1])
        changes.append(f"{stored.shape[1]} to {target.shape[1]} channels, by sum and equal shares")
    for axis in range(KERNEL_AXES_FROM, stored.ndim):
        if stored.shape[axis] == target.shape[axis]:
            continue
        resize = KERNEL_RESIZING.get((stored.shape[axis] > 1, target.shape[axis] > 1))
        if resize is None or target.shape[axis] % 2 == 0:
            return None, found
        fitted = resize(fitted, axis, target.shape[axis])
        changes.append(f"kernel of {stored.shape[axis]} to {target.shape[axis]} along axis {axis - KERNEL_AXES_FROM}")
    return fitted, "; ".join(changes)


def over_channels(kernel: Tensor, channels: int) -> Tensor:
    """A kernel for another number of image channels, all weighted alike.

    An image whose channels are copies of each other gives what it gave before.
    """
    return kernel.sum(1, keepdim=True).repeat_interleave(channels, 1) / channels


def _summed(kernel: Tensor, axis: int, length: int) -> Tensor:
    """A kernel of length 1 with the same response to what is constant along the axis."""
    return kernel.sum(axis, keepdim=True)


def _centred(kernel: Tensor, axis: int, length: int) -> Tensor:
    """A longer kernel with the same response: zeros around the one weight."""
    shape = list(kernel.shape)
    shape[axis] = length
    longer = kernel.new_zeros(shape)
    longer.narrow(axis, length // 2, 1).copy_(kernel)
    return longer


# By whether the stored and the wanted kernel are longer than 1.
KERNEL_RESIZING: dict[tuple[bool, bool], Callable[[Tensor, int, int], Tensor]] = {
    (True, False): _summed,
    (False, True): _centred,
}
