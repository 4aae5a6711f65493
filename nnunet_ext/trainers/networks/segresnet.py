"""SegResNet instead of the planned network (arXiv 1810.11654), alone or in a mixture."""

from __future__ import annotations

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_ext.architectures.backbone import Backbone
from nnunet_ext.architectures.segresnet import SegResNetLevels
from nnunet_ext.trainers.networks.network_part import NetworkPart
from nnunet_ext.trainers.networks.planned_sizes import planned_sizes


class SegResNet(NetworkPart):
    """A SegResNet with the first four stages of the plans and their first number of channels."""

    @classmethod
    def build_network(
        cls, configuration: ConfigurationManager, input_channels: int, outputs: int, deep_supervision: bool
    ) -> Backbone:
        """See `NetworkPart`."""
        sizes = planned_sizes(configuration, "SegResNet")
        network = SegResNetLevels(input_channels, outputs, strides=sizes.strides, filters=sizes.features[0])
        return Backbone(network, outputs, sizes.strides, deep_supervision=deep_supervision)
