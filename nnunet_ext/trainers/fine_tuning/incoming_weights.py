"""Receives the file of `-pretrained_weights` from stock nnU-Net, which otherwise takes complete networks only."""

from __future__ import annotations

from collections.abc import Callable, KeysView, Mapping
from typing import Any

from torch import Tensor, nn

from nnunet_ext.architectures.weight_transfer import TransferReport

FEWEST_ARRIVED = 0.9  # of the encoder's tensors
LISTED = 10  # tensors that a message names
ENCODER, DECODER = "encoder.", "decoder."


class PretrainedWeightsError(ValueError):
    """Pre-trained weights are missing or do not fit the network."""


class AnyWeights(dict[str, Tensor]):
    """An empty state dict that has every key.

    nnU-Net compares the file with the network's state dict: each tensor of the network must be in the file, and what
    the network does not have is dropped. Compared with this one, every file fits and nothing but the segmentation
    layers is dropped.
    """

    def keys(self) -> Any:
        """A view that contains everything."""
        return EveryKey(self)


class EveryKey(KeysView[str]):
    """The keys of a dictionary; any other key is in it as well."""

    def __contains__(self, key: object) -> bool:
        return True


def receive_weights(network: nn.Module, receive: Callable[[Mapping[str, Tensor]], None]) -> None:
    """Lets a function receive what nnU-Net next loads into a network, until `stop_receiving`.

    nnU-Net hands a trainer neither the file nor its content; it calls `state_dict` and `load_state_dict` of the
    network, which are replaced on this object only.
    """
    network.__dict__["state_dict"] = AnyWeights
    network.__dict__["load_state_dict"] = receive


def stop_receiving(network: nn.Module) -> None:
    """Gives a network its own `state_dict` and `load_state_dict` back."""
    for name in ("state_dict", "load_state_dict"):
        network.__dict__.pop(name, None)


def missing_weights_message(trainer: str) -> str:
    """What to do if a fine-tuning begins without weights."""
    return (
        f"{trainer} starts from pre-trained weights; found none. Add -pretrained_weights FILE, a checkpoint of "
        f"nnU-Net, of nnssl or of `nnunet_ext pretrain -i FOLDER -d ID`, which learns from images without labels. If "
        f"--c found no checkpoint, leave it out."
    )


def transfer_lines(report: TransferReport) -> list[str]:
    """What was transferred, adapted and left, for the log."""
    lines = [
        f"Pre-trained weights: {report.arrived(part)} of {report.wanted(part)} tensors of the {part[:-1]}."
        for part in (ENCODER, DECODER)
        if report.wanted(part)
    ]
    lines += [f"  adapted: {name}: {change}" for name, change in report.adapted.items()]
    lines += [f"  left at its initial weights: {name}: {reason}" for name, reason in report.left.items()]
    if report.unused:
        lines.append(f"  not used of the file: {shortened(report.unused)}")
    return lines


def require_encoder(report: TransferReport) -> None:
    """Refuses weights of which too little reaches the encoder.

    Raises:
        PretrainedWeightsError: if fewer than 90 % of the encoder's tensors were transferred.
    """
    arrived, wanted = report.arrived(ENCODER), report.wanted(ENCODER)
    if arrived >= FEWEST_ARRIVED * wanted:
        return
    left = [f"{name} ({reason})" for name, reason in report.left.items() if name.startswith(ENCODER)]
    raise PretrainedWeightsError(
        f"At least {FEWEST_ARRIVED:.0%} of the encoder's tensors must come from the pre-trained weights; found "
        f"{arrived} of {wanted}. Left: {shortened(left)}. Use plans with the stages, features and blocks of the "
        f"pre-training, or weights of these plans."
    )


def shortened(names: list[str] | tuple[str, ...]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
