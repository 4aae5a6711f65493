"""Swin UNETR (arXiv 2201.01266): MONAI's network with its decoder's levels."""

from __future__ import annotations

from monai.networks.nets.swin_unetr import SwinUNETR
from torch import Tensor

from nnunet_ext.architectures.backbone import Axes, LevelNetwork

STRIDE = 32  # of the deepest features, along each axis


class SwinUNETRLevels(LevelNetwork):
    """A transformer with shifted windows of 7 tokens per axis in four stages, and a convolutional decoder.

    Args:
        axes: 2 or 3.
        input_channels: number of image channels.
        outputs: C, the number of logits.
        filters: number of channels of the finest level, a multiple of 12.
    """

    def __init__(self, axes: int, input_channels: int, outputs: int, *, filters: int) -> None:
        super().__init__()
        self.swin = SwinUNETR(
            in_channels=input_channels, out_channels=outputs, feature_size=filters, spatial_dims=axes
        )
        self.multiple: Axes = (STRIDE,) * axes
        self.level_strides = [(stride,) * axes for stride in (2, 4, 8, 16)]
        self.level_channels = [filters, 2 * filters, 4 * filters, 8 * filters]

    def levels(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `LevelNetwork`."""
        net = self.swin
        half, quarter, eighth, sixteenth, deepest = net.swinViT(image, net.normalize)
        sixteenth = net.decoder5(net.encoder10(deepest), sixteenth)
        eighth = net.decoder4(sixteenth, net.encoder4(eighth))
        quarter = net.decoder3(eighth, net.encoder3(quarter))
        half = net.decoder2(quarter, net.encoder2(half))
        return net.out(net.decoder1(half, net.encoder1(image))), [half, quarter, eighth, sixteenth]
