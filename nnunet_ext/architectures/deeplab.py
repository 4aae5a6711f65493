"""DeepLabV3+ for nnU-Net's inputs, in 2D and by the same construction in 3D (arXiv 1802.02611).

The encoder has the inverted residual blocks of MobileNetV2 (arXiv 1801.04381) without pre-training. It is the second
base classifier of the Streaming ensemble (arXiv 2502.09269). Instance norm takes the place of batch norm, because
nnU-Net's batches are small; where that would undo the construction it is left out, see `ImagePooling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.helper import (
    convert_conv_op_to_dim,
    get_matching_instancenorm,
)
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn

from nnunet_ext.architectures.deeplab_strides import (
    RATES,
    Axes,
    limited_strides,
    low_level_stage,
    per_axis,
    require_stages,
)

CONTEXT_CHANNELS = 256
LOW_LEVEL_CHANNELS = 48
LEAKY_SLOPE = 1e-2  # nnU-Net's


class DeepLabV3Plus(nn.Module):
    """Logits at full resolution from context at 1/16 and details at 1/4.

    With nnU-Net's usual 2D plan (strides 1, 2, 2, 2, 2, 2, 2, features 32, 64, 128, 256, 512, 512, 512, one input
    channel, four classes) it has 23,969,892 parameters.

    Args:
        input_channels: of the image.
        num_classes: C, the number of logits.
        conv_op: nn.Conv2d or nn.Conv3d.
        strides: of each stage, as in nnU-Net's plans, the first one 1 along all axes. Along an axis that has reached
            1/16 a stage dilates instead. The first convolution takes the stride of the second stage at once, as
            MobileNetV2 does: nothing of the encoder is at full resolution.
        features_per_stage: output channels of each stage.
        norm_op: None is instance norm.
        norm_op_kwargs: None is nnU-Net's, with learned scale and shift.
        dropout: probability, element by element, of the context, in training only; 0.5 as in the Streaming paper's
            code.
        deep_supervision: return a list of logits, see `DeepLabDecoder`.
        atrous_rates: of the three atrous branches, in positions of the context's grid, one number or one an axis. The
            paper's are for large pictures; for a patch take those of `atrous_rates_for`.
        blocks_per_stage: inverted residual blocks of each stage but the first.
        expansion: how many times wider a block is inside.

    Raises:
        ValueError: if there are fewer than two stages, the first one has a stride, or the lists differ in length.

    As with every network with instance norm, a patch must leave more than one position at 1/16.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        conv_op: type[nn.Module],
        strides: Sequence[int | Sequence[int]],
        features_per_stage: Sequence[int],
        norm_op: type[nn.Module] | None = None,
        norm_op_kwargs: dict[str, Any] | None = None,
        dropout: float = 0.5,
        deep_supervision: bool = False,
        atrous_rates: Sequence[int | Sequence[int]] = RATES,
        blocks_per_stage: int = 2,
        expansion: int = 6,
    ) -> None:
        super().__init__()
        dimensions = convert_conv_op_to_dim(conv_op)
        strides_by_axis = [per_axis(stride, dimensions) for stride in strides]
        require_stages(strides_by_axis, features_per_stage)
        layers = Layers(conv_op, norm_op, norm_op_kwargs)
        self.encoder = DeepLabEncoder(
            layers,
            input_channels,
            strides_by_axis,
            features_per_stage,
            rates=[per_axis(rate, dimensions) for rate in atrous_rates],
            dropout=dropout,
            blocks_per_stage=blocks_per_stage,
            expansion=expansion,
        )
        self.decoder = DeepLabDecoder(
            layers, self.encoder.low_level_channels, num_classes, strides_by_axis, deep_supervision=deep_supervision
        )
        self.apply(InitWeights_He(LEAKY_SLOPE))

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """(B, channels, *spatial) to logits (B, C, *spatial), or to a list of them, the finest first.

        Any size will do; nnU-Net's patches are multiples of the strides.
        """
        low_level, context = self.encoder(image)
        return self.decoder(low_level, context, image.shape[2:])


class DeepLabEncoder(nn.Module):
    """Inverted residual blocks, then atrous spatial pyramid pooling (ASPP) and dropout.

    Args:
        layers: builds convolutions.
        input_channels: of the image.
        strides: of each stage, per axis.
        features_per_stage: of each stage.
        rates: of the atrous branches, per axis.
        dropout: of the context.
        blocks_per_stage: of each stage but the first, which is one convolution.
        expansion: of the blocks; those of the second stage do not expand, as in MobileNetV2.

    Attributes:
        low_level_stage: whose output the decoder adds: the last one, before the deepest, at 1/4 or finer along all
            axes.
        low_level_channels: its channels.
    """

    def __init__(
        self,
        layers: Layers,
        input_channels: int,
        strides: Sequence[Axes],
        features_per_stage: Sequence[int],
        *,
        rates: Sequence[Axes],
        dropout: float,
        blocks_per_stage: int,
        expansion: int,
    ) -> None:
        super().__init__()
        steps, dilations = limited_strides(strides)
        stem = layers.normalised(input_channels, features_per_stage[0], 3, stride=steps[1])
        stages = [nn.Sequential(stem, layers.nonlinearity())]
        for stage in range(1, len(strides)):
            blocks: list[nn.Module] = []
            for index in range(blocks_per_stage):
                first = index == 0
                blocks.append(
                    InvertedResidual(
                        layers,
                        features_per_stage[stage - 1] if first else features_per_stage[stage],
                        features_per_stage[stage],
                        stride=steps[stage] if first and stage > 1 else per_axis(1, len(steps[stage])),
                        dilation=dilations[stage],
                        expansion=1 if stage == 1 else expansion,
                    )
                )
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.low_level_stage = low_level_stage(steps)
        self.low_level_channels = features_per_stage[self.low_level_stage]
        self.pyramid = AtrousPyramid(layers, features_per_stage[-1], CONTEXT_CHANNELS, rates)
        self.dropout = nn.Dropout(dropout)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, channels, *spatial) to features at about 1/4 and the context, (B, 256, *coarse)."""
        features = image
        low_level = image
        for index, stage in enumerate(self.stages):
            features = stage(features)
            if index == self.low_level_stage:
                low_level = features
        return low_level, self.dropout(self.pyramid(features))


class DeepLabDecoder(nn.Module):
    """Context and low-level features to logits.

    Args:
        layers: builds convolutions.
        low_level_channels: of the encoder's features at about 1/4.
        num_classes: C, the number of logits.
        strides: of each stage of nnU-Net's plans, per axis.
        deep_supervision: return as many logits as nnU-Net's decoder, one for each stage but the deepest and at its
            resolution: the network's own, averaged over areas. They have no weights of their own. Can be set later.
    """

    def __init__(
        self,
        layers: Layers,
        low_level_channels: int,
        num_classes: int,
        strides: Sequence[Axes],
        *,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.strides = list(strides)
        self.mode = "bilinear" if len(strides[0]) == 2 else "trilinear"
        self.reduce = nn.Sequential(
            layers.normalised(low_level_channels, LOW_LEVEL_CHANNELS, 1), layers.nonlinearity()
        )
        self.refine = nn.Sequential(
            layers.normalised(LOW_LEVEL_CHANNELS + CONTEXT_CHANNELS, CONTEXT_CHANNELS, 3),
            layers.nonlinearity(),
            layers.normalised(CONTEXT_CHANNELS, CONTEXT_CHANNELS, 3),
            layers.nonlinearity(),
        )
        self.classify = layers.plain(CONTEXT_CHANNELS, num_classes)

    def forward(self, low_level: Tensor, context: Tensor, size: Sequence[int]) -> Tensor | list[Tensor]:
        """Logits (B, C, *size), or a list of them, the finest first.

        Args:
            low_level: (B, low-level channels, *about a quarter).
            context: (B, 256, *coarse).
            size: of the image.
        """
        details = self.reduce(low_level)
        context = F.interpolate(context, size=details.shape[2:], mode=self.mode)
        logits = self.classify(self.refine(torch.cat([details, context], dim=1)))
        logits = F.interpolate(logits, size=tuple(size), mode=self.mode)
        if not self.deep_supervision:
            return logits
        outputs = [logits]
        for stride in self.strides[1:-1]:  # the last one leads to the bottleneck, which has no logits
            size = [-(-length // step) for length, step in zip(size, stride, strict=True)]
            outputs.append(F.interpolate(logits, size=size, mode="area"))
        return outputs


class InvertedResidual(nn.Module):
    """Expansion by a 1x1 convolution, a 3x3 convolution of each channel by itself, a linear projection (MobileNetV2).

    The input is added to the output where both have the same shape. Before another 1x1 convolution with instance norm
    the shift of the projection's norm has no effect and no gradient: that norm subtracts it again.

    Args:
        layers: builds convolutions.
        input_channels: of the block.
        output_channels: of the block.
        stride: of the depthwise convolution, per axis.
        dilation: likewise.
        expansion: 1 leaves out the first convolution.
    """

    def __init__(
        self,
        layers: Layers,
        input_channels: int,
        output_channels: int,
        *,
        stride: Axes,
        dilation: Axes,
        expansion: int,
    ) -> None:
        super().__init__()
        hidden = expansion * input_channels
        expand: list[nn.Module] = []
        if expansion > 1:
            expand = [layers.normalised(input_channels, hidden, 1), layers.nonlinearity()]
        self.block = nn.Sequential(
            *expand,
            layers.normalised(hidden, hidden, 3, stride=stride, dilation=dilation, groups=hidden),
            layers.nonlinearity(),
            layers.normalised(hidden, output_channels, 1),
        )
        self.residual = input_channels == output_channels and prod(stride) == 1

    def forward(self, features: Tensor) -> Tensor:
        """(B, input channels, *spatial) to (B, output channels, *spatial / stride)."""
        output = self.block(features)
        return features + output if self.residual else output


class AtrousPyramid(nn.Module):
    """ASPP (arXiv 1706.05587): a 1x1 convolution, atrous 3x3 ones and the image's mean, joined by a 1x1 convolution.

    The joining convolution has no instance norm: it would subtract each channel's mean over the image, and with it
    all that the image's mean has contributed, which is the same at every position.

    Args:
        layers: builds convolutions.
        input_channels: of the encoder's last stage.
        output_channels: of each branch and of the whole.
        rates: dilations of the atrous branches, per axis.
    """

    def __init__(self, layers: Layers, input_channels: int, output_channels: int, rates: Sequence[Axes]) -> None:
        super().__init__()
        branches = [nn.Sequential(layers.normalised(input_channels, output_channels, 1), layers.nonlinearity())]
        for rate in rates:
            atrous = layers.normalised(input_channels, output_channels, 3, dilation=rate)
            branches.append(nn.Sequential(atrous, layers.nonlinearity()))
        self.branches = nn.ModuleList(branches)
        self.image_pooling = ImagePooling(layers, input_channels, output_channels)
        self.join = nn.Sequential(
            layers.plain((len(branches) + 1) * output_channels, output_channels), layers.nonlinearity()
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, input channels, *spatial) to (B, output channels, *spatial)."""
        return self.join(
            torch.cat([*(branch(features) for branch in self.branches), self.image_pooling(features)], dim=1)
        )


class ImagePooling(nn.Module):
    """The mean over the image, through a 1x1 convolution, at every position.

    Two things differ from DeepLab, both because of instance norm. The convolution has no norm after it: a channel has
    one value here, less its mean that is 0. The mean is that of features after a non-linearity: the encoder's last
    layer is linear and normalised, so its mean is a learned number that no image changes.
    """

    def __init__(self, layers: Layers, input_channels: int, output_channels: int) -> None:
        super().__init__()
        self.activate = nn.LeakyReLU(LEAKY_SLOPE)  # not in place, the other branches need the features
        self.project = nn.Sequential(layers.plain(input_channels, output_channels), layers.nonlinearity())

    def forward(self, features: Tensor) -> Tensor:
        """(B, input channels, *spatial) to (B, output channels, *spatial)."""
        axes = tuple(range(2, features.ndim))
        mean = self.activate(features).mean(dim=axes, keepdim=True)  # (B, input channels, 1, 1)
        return self.project(mean).expand(-1, -1, *features.shape[2:])


class Layers:
    """Builds the convolutions of one network.

    Args:
        conv_op: nn.Conv2d or nn.Conv3d.
        norm_op: None is instance norm.
        norm_op_kwargs: None is nnU-Net's.
    """

    def __init__(
        self, conv_op: type[nn.Module], norm_op: type[nn.Module] | None, norm_op_kwargs: dict[str, Any] | None
    ) -> None:
        self.conv_op = conv_op
        self.norm_op = norm_op or get_matching_instancenorm(conv_op)
        self.norm_op_kwargs = {"eps": 1e-5, "affine": True} if norm_op_kwargs is None else norm_op_kwargs
        self.dimensions = convert_conv_op_to_dim(conv_op)

    def normalised(
        self,
        input_channels: int,
        output_channels: int,
        kernel_size: int,
        *,
        stride: Axes | int = 1,
        dilation: Axes | int = 1,
        groups: int = 1,
    ) -> nn.Sequential:
        """A convolution that keeps the size, divided by the stride and rounded up, and a norm."""
        dilation = per_axis(dilation, self.dimensions)
        convolution = self.conv_op(
            input_channels,
            output_channels,
            kernel_size,
            stride=per_axis(stride, self.dimensions),
            padding=tuple(step * (kernel_size // 2) for step in dilation),
            dilation=dilation,
            groups=groups,
            bias=False,  # the norm has one
        )
        return nn.Sequential(convolution, self.norm_op(output_channels, **self.norm_op_kwargs))

    def plain(self, input_channels: int, output_channels: int) -> nn.Module:
        """A 1x1 convolution with a bias and no norm."""
        return self.conv_op(input_channels, output_channels, 1)

    @staticmethod
    def nonlinearity() -> nn.Module:
        """nnU-Net's."""
        return nn.LeakyReLU(LEAKY_SLOPE, inplace=True)
