"""DeepLabV3+ instead of the planned network (arXiv 1802.02611), alone or in a mixture."""

from __future__ import annotations

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunet_ext.architectures.deeplab import DeepLabV3Plus
from nnunet_ext.architectures.deeplab_strides import atrous_rates_for
from nnunet_ext.trainers.networks.network_part import NetworkPart
from nnunet_ext.trainers.networks.planned_sizes import planned_sizes

CONV_BY_AXES: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}


class DeepLab(NetworkPart):
    """A DeepLabV3+ with the strides and channels of the plans."""

    @classmethod
    def build_network(
        cls, configuration: ConfigurationManager, input_channels: int, outputs: int, deep_supervision: bool
    ) -> DeepLabV3Plus:
        """See `NetworkPart`."""
        sizes = planned_sizes(configuration, "DeepLab")
        return DeepLabV3Plus(
            input_channels,
            outputs,
            conv_op=CONV_BY_AXES[len(sizes.patch_size)],
            strides=sizes.strides,
            features_per_stage=sizes.features,
            atrous_rates=atrous_rates_for(sizes.patch_size, sizes.strides),
            deep_supervision=deep_supervision,
        )
