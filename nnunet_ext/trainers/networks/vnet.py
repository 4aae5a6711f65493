"""V-Net instead of the planned network (arXiv 1606.04797), alone or in a mixture."""

from __future__ import annotations

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_ext.architectures.backbone import Backbone
from nnunet_ext.architectures.vnet import VNetLevels
from nnunet_ext.trainers.networks.network_part import NetworkPart
from nnunet_ext.trainers.networks.planned_sizes import planned_sizes


class VNet(NetworkPart):
    """A V-Net with the first five stages of the plans.

    Its first stage has half as many channels as that of the plans: 16, as in the paper, where they say 32.
    """

    @classmethod
    def build_network(
        cls, configuration: ConfigurationManager, input_channels: int, outputs: int, deep_supervision: bool
    ) -> Backbone:
        """See `NetworkPart`."""
        sizes = planned_sizes(configuration, "VNet")
        filters = max(1, sizes.features[0] // 2)
        network = VNetLevels(input_channels, outputs, strides=sizes.strides, filters=filters)
        return Backbone(network, outputs, sizes.strides, deep_supervision=deep_supervision)
