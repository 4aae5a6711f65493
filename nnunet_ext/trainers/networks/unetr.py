"""UNETR instead of the planned network (arXiv 2103.10504), alone or in a mixture."""

from __future__ import annotations

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_ext.architectures.backbone import Backbone
from nnunet_ext.architectures.unetr import TOKEN, UNETRLevels
from nnunet_ext.trainers.networks.network_part import NetworkPart
from nnunet_ext.trainers.networks.planned_sizes import planned_sizes, require_room


class UNETR(NetworkPart):
    """A UNETR for the patch size of the plans.

    Where the plans begin with 32 channels it has the paper's sizes, 16 in the decoder's finest level and 768 a token;
    otherwise both are in proportion.
    """

    @classmethod
    def build_network(
        cls, configuration: ConfigurationManager, input_channels: int, outputs: int, deep_supervision: bool
    ) -> Backbone:
        """See `NetworkPart`."""
        sizes = planned_sizes(configuration, "UNETR")
        require_room(sizes, TOKEN, "UNETR")
        network = UNETRLevels(
            input_channels,
            outputs,
            patch_size=sizes.patch_size,
            filters=max(1, sizes.features[0] // 2),
            hidden=24 * sizes.features[0],
        )
        return Backbone(network, outputs, sizes.strides, deep_supervision=deep_supervision)
