"""Swin UNETR instead of the planned network (arXiv 2201.01266), alone or in a mixture."""

from __future__ import annotations

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_ext.architectures.backbone import Backbone
from nnunet_ext.architectures.swin_unetr import STRIDE, SwinUNETRLevels
from nnunet_ext.trainers.networks.network_part import NetworkPart
from nnunet_ext.trainers.networks.planned_sizes import planned_sizes, require_room


class SwinUNETR(NetworkPart):
    """A Swin UNETR.

    Where the plans begin with 32 channels it begins with 48; otherwise in proportion, in multiples of 12.
    """

    @classmethod
    def build_network(
        cls, configuration: ConfigurationManager, input_channels: int, outputs: int, deep_supervision: bool
    ) -> Backbone:
        """See `NetworkPart`."""
        sizes = planned_sizes(configuration, "SwinUNETR")
        require_room(sizes, STRIDE, "SwinUNETR")
        if max(sizes.patch_size) <= STRIDE:  # instance norm would leave nothing of a single position
            raise ValueError(
                f"SwinUNETR reduces every axis by {STRIDE} and needs a patch longer than that along one of them; "
                f"found {sizes.patch_size}. Train UNETR, SegResNet, VNet or LCOVNet."
            )
        filters = 12 * max(1, round(sizes.features[0] / 8))
        network = SwinUNETRLevels(len(sizes.patch_size), input_channels, outputs, filters=filters)
        return Backbone(network, outputs, sizes.strides, deep_supervision=deep_supervision)
