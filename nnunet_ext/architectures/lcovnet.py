"""LCOV-Net (Zhao et al., ISBI 2021 and IEEE TMI 2023): a light U-Net of separable convolutions, for any plans."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from dynamic_network_architectures.building_blocks.helper import get_matching_instancenorm
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_ext.architectures.backbone import CONV_BY_AXES, Axes, LevelFeatures, LevelNetwork, total_strides

DROPOUT = 0.2  # probability, as in the released code
POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}
MAX_POOL: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


class LCOVNetLevels(LevelNetwork):
    """A U-Net with the stages of the plans, one separable block with attention a stage, and max pooling.

    Args:
        input_channels: number of image channels.
        outputs: C, the number of logits.
        strides: stride of each stage, per axis.
        features: number of channels of each stage.
    """

    def __init__(
        self, input_channels: int, outputs: int, *, strides: Sequence[Axes], features: Sequence[int]
    ) -> None:
        super().__init__()
        axes = len(strides[0])
        inputs = [input_channels, *features[:-1]]
        deepest = len(strides) - 1
        self.pool = nn.ModuleList(MAX_POOL[axes](stride) for stride in strides[1:])
        self.encoder_blocks = nn.ModuleList(
            SeparableBlock(axes, inputs[stage], features[stage], is_deepest=stage == deepest)
            for stage in range(len(strides))
        )
        self.reduce = nn.ModuleList(
            layers(axes, features[level + 1], features[level], (1,) * axes) for level in range(deepest)
        )
        self.decoder_blocks = nn.ModuleList(
            SeparableBlock(axes, 2 * features[level], features[level]) for level in range(deepest)
        )
        self.classify = CONV_BY_AXES[axes](features[0], outputs, 1)
        self.mode = "bilinear" if axes == 2 else "trilinear"
        totals = total_strides(strides)
        self.multiple = totals[-1]
        self.level_strides = totals[1:-1]
        self.steps = strides
        self.encoder_channels, self.decoder_channels = features[:-1], features

    def features(self, image: Tensor) -> LevelFeatures:
        """See `LevelNetwork`."""
        features = self.encoder_blocks[0](image)
        skips = []
        for pool, block in zip(self.pool, self.encoder_blocks[1:], strict=True):
            skips.append(features)
            features = block(pool(features))
        decoded = [features]
        for level in reversed(range(len(skips))):
            skip = skips[level]
            finer = F.interpolate(self.reduce[level](features), size=skip.shape[2:], mode=self.mode)
            features = self.decoder_blocks[level](torch.cat([finer, skip], dim=1))
            decoded.insert(0, features)
        return LevelFeatures(self.classify(decoded[0]), skips, decoded)


class SeparableBlock(nn.Module):
    """A convolution along the first axis, one along the others, and an attention for what skips the second.

    Args:
        axes: 2 or 3.
        inputs: number of input channels.
        outputs: number of output channels.
        is_deepest: the second convolution has a group a channel, and the attention is at full resolution.
    """

    def __init__(self, axes: int, inputs: int, outputs: int, *, is_deepest: bool = False) -> None:
        super().__init__()
        self.first_axis = layers(axes, inputs, outputs, (3, *(1,) * (axes - 1)), dropout=0)
        groups = outputs if is_deepest else 1
        self.other_axes = layers(axes, outputs, outputs, (1, *(3,) * (axes - 1)), groups=groups)
        self.attention = CONV_BY_AXES[axes](outputs, outputs, 1)
        self.is_deepest = is_deepest
        self.mode = "bilinear" if axes == 2 else "trilinear"

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, *spatial) to (B, outputs, *spatial)."""
        features = self.first_axis(features)
        return self.other_axes(features) + self.attended(features) * features

    def attended(self, features: Tensor) -> Tensor:
        """The share of each feature that skips the second convolution, from 0 to 1, of the same shape."""
        if self.is_deepest:
            return self.attention(features).sigmoid()
        logits = self.attention(half_as_large(features))
        return F.interpolate(logits, size=features.shape[2:], mode=self.mode).sigmoid()


def half_as_large(features: Tensor) -> Tensor:
    """Means over overlapping windows of 4 at every second position; of 2 where an axis is shorter, of 1 for one."""
    windows = [(4, 2, 1) if length >= 4 else (min(length, 2),) * 2 + (0,) for length in features.shape[2:]]
    kernel, stride, padding = zip(*windows, strict=True)
    return POOL[len(windows)](features, kernel, stride, padding)


def layers(
    axes: int, inputs: int, outputs: int, kernel: Axes, *, groups: int = 1, dropout: float = DROPOUT
) -> nn.Sequential:
    """A convolution, instance norm, ReLU6 and dropout."""
    padding = tuple(length // 2 for length in kernel)
    convolution = CONV_BY_AXES[axes](inputs, outputs, kernel, padding=padding, groups=groups, bias=False)
    norm = get_matching_instancenorm(dimension=axes)(outputs, affine=True)
    return nn.Sequential(convolution, norm, nn.ReLU6(inplace=True), nn.Dropout(dropout))
