"""The base class of parts that replace the planned network."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunet_ext.trainers.base import ExtTrainer


class NetworkPart(ExtTrainer):
    """A part with its own network, which is trained alone or mixed by `Streaming`.

    A part defines `build_network` and nothing else.
    """

    @classmethod
    @abstractmethod
    def build_network(
        cls, configuration: ConfigurationManager, input_channels: int, outputs: int, deep_supervision: bool
    ) -> nn.Module:
        """Builds the network for a configuration of the plans.

        The network takes images (B, input_channels, *spatial) and returns logits (B, outputs, *spatial), or a list of
        logits with deep supervision, the finest first. It must have nnU-Net's switch `decoder.deep_supervision`.

        Args:
            configuration: the configuration with its strides, channels and patch size.
            input_channels: number of image channels.
            outputs: number of classes including background, or number of regions.
            deep_supervision: whether the network returns a list.
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
        """The part's network; the planned network is not built."""
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
