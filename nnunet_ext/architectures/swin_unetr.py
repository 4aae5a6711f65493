"""Swin UNETR (arXiv 2201.01266): MONAI's network with its decoder's levels."""

from __future__ import annotations

from monai.networks.nets.swin_unetr import SwinUNETR
from torch import Tensor

from nnunet_ext.architectures.backbone import Axes, LevelFeatures, LevelNetwork

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
        self.steps: list[Axes] = [(1,) * axes, *[(2,) * axes] * 4]
        self.encoder_channels = [filters, filters, 2 * filters, 4 * filters]
        self.decoder_channels = [*self.encoder_channels, 8 * filters]

    def features(self, image: Tensor) -> LevelFeatures:
        """See `LevelNetwork`; the coarsest level is at a sixteenth, as in self-distillation's released code."""
        net = self.swin
        half, quarter, eighth, sixteenth, deepest = net.swinViT(image, net.normalize)
        encoder = [net.encoder1(image), net.encoder2(half), net.encoder3(quarter), net.encoder4(eighth)]
        sixteenth = net.decoder5(net.encoder10(deepest), sixteenth)
        eighth = net.decoder4(sixteenth, encoder[3])
        quarter = net.decoder3(eighth, encoder[2])
        half = net.decoder2(quarter, encoder[1])
        full = net.decoder1(half, encoder[0])
        return LevelFeatures(net.out(full), encoder, [full, half, quarter, eighth, sixteenth])
