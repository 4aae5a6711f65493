"""SegResNet (arXiv 1810.11654) from MONAI's residual blocks, with nnU-Net's strides per axis."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod

from monai.networks.blocks.segresnet_block import ResBlock
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_ext.architectures.backbone import CONV_BY_AXES, Axes, LevelFeatures, LevelNetwork, total_strides

BLOCKS = (1, 2, 2, 4)  # residual blocks of each encoder stage, as in the paper
LARGEST_GROUPS = 8  # of group norm, as in the paper


class SegResNetLevels(LevelNetwork):
    """A residual encoder of up to four stages, and a decoder with one block a level that adds the encoder's features.

    Channels double from stage to stage. Where all strides are 2 it is MONAI's `SegResNet`. The variational
    autoencoder of the paper is left out.

    Args:
        input_channels: number of image channels.
        outputs: C, the number of logits.
        strides: stride of each stage, per axis; those of the first four stages are used.
        filters: number of channels of the first stage.
    """

    def __init__(self, input_channels: int, outputs: int, *, strides: Sequence[Axes], filters: int) -> None:
        super().__init__()
        steps = list(strides[: len(BLOCKS)])
        axes = len(steps[0])
        conv = CONV_BY_AXES[axes]
        self.groups = gcd(LARGEST_GROUPS, filters)
        norm = ("GROUP", {"num_groups": self.groups})
        channels = [filters * 2**stage for stage in range(len(steps))]

        self.stem = conv(input_channels, filters, 3, padding=1, bias=False)
        self.encoder_stages, self.decoder_stages, self.to_finer = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for stage, blocks in enumerate(BLOCKS[: len(steps)]):
            width = channels[stage]
            down = conv(width // 2, width, 3, steps[stage], padding=1, bias=False) if stage else nn.Identity()
            self.encoder_stages.append(nn.Sequential(down, *(ResBlock(axes, width, norm) for _ in range(blocks))))
        for stage in reversed(range(len(steps) - 1)):
            narrow = conv(channels[stage + 1], channels[stage], 1, bias=False)
            self.to_finer.append(nn.Sequential(narrow, enlarged(steps[stage + 1])))
            self.decoder_stages.append(ResBlock(axes, channels[stage], norm))
        self.classify = nn.Sequential(
            nn.GroupNorm(self.groups, filters),
            nn.ReLU(inplace=True),
            conv(filters, outputs, 1),
        )
        totals = total_strides(steps)
        self.multiple = totals[-1]
        self.level_strides = totals[1:-1]
        self.steps = steps
        self.encoder_channels, self.decoder_channels = channels[:-1], channels

    def features(self, image: Tensor) -> LevelFeatures:
        """See `LevelNetwork`."""
        features = self.stem(image)
        skips = []
        for stage in self.encoder_stages:
            features = stage(features)
            skips.append(features)
        decoded = [features]
        for skip, to_finer, stage in zip(skips[-2::-1], self.to_finer, self.decoder_stages, strict=True):
            features = stage(to_finer(features) + skip)
            decoded.insert(0, features)
        return LevelFeatures(self.classify(decoded[0]), skips[:-1], decoded)

    def for_heads(self, features: Tensor) -> Tensor:
        """Normalised and activated, as before this network's own classification: its blocks end with a plain sum."""
        return F.relu(F.group_norm(features, self.groups))


def enlarged(stride: Axes) -> nn.Module:
    """Linear interpolation to a resolution that is finer by this factor per axis."""
    mode = "bilinear" if len(stride) == 2 else "trilinear"
    factors = tuple(float(step) for step in stride)
    return nn.Upsample(scale_factor=factors, mode=mode) if prod(stride) > 1 else nn.Identity()
