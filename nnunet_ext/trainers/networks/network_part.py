"""What parts share that train another network than the planned one."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunet_ext.trainers.base import ExtTrainer


class NetworkPart(ExtTrainer):
    """A part that has a network of its own: it is trained alone, or mixed by `Streaming`.

    A part defines `build_network` and nothing else.
    """

    @classmethod
    @abstractmethod
    def build_network(
        cls, configuration: ConfigurationManager, input_channels: int, outputs: int, deep_supervision: bool
    ) -> nn.Module:
        """One network for a configuration of the plans.

        It returns logits (B, outputs, *spatial) of images (B, input_channels, *spatial), with deep supervision a
        list of them, the finest first, and has nnU-Net's switch for that, `decoder.deep_supervision`.

        Args:
            configuration: its strides, channels and patch size.
            input_channels: of an image.
            outputs: the number of classes with background, or of regions.
            deep_supervision: whether it returns a list.
        """

    @classmethod
    def build_network_architecture(  # a classmethod, so that super() finds other parts
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The part's network; the planned one is not built."""
        return cls.build_network(
            configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )


def network_parts_of(trainer: type) -> list[type[NetworkPart]]:
    """The network parts that a trainer's class derives from, in the order of the table."""
    return [
        part
        for part in trainer.__mro__
        if part is not NetworkPart and issubclass(part, NetworkPart) and "build_network" in vars(part)
    ]
