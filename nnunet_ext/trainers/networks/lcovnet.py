"""LCOV-Net instead of the planned network (Zhao et al. 2023), alone or in a mixture."""

from __future__ import annotations

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_ext.architectures.backbone import Backbone
from nnunet_ext.architectures.lcovnet import LCOVNetLevels
from nnunet_ext.trainers.networks.network_part import NetworkPart
from nnunet_ext.trainers.networks.planned_sizes import planned_sizes


class LCOVNet(NetworkPart):
    """An LCOV-Net with the strides and channels of the plans."""

    @classmethod
    def build_network(
        cls, configuration: ConfigurationManager, input_channels: int, outputs: int, deep_supervision: bool
    ) -> Backbone:
        """See `NetworkPart`."""
        sizes = planned_sizes(configuration, "LCOVNet")
        network = LCOVNetLevels(input_channels, outputs, strides=sizes.strides, features=sizes.features)
        return Backbone(network, outputs, sizes.strides, deep_supervision=deep_supervision)
