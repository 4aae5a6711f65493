"""DeepLabV3+ for nnU-Net's inputs, in 2D and, built the same way, in 3D (arXiv 1802.02611).

The encoder has the inverted residual blocks of MobileNetV2 (arXiv 1801.04381) without pre-training. It is the second
base classifier of the Streaming ensemble (arXiv 2502.09269). Instance norm replaces batch norm, because nnU-Net's
batches are small; where it would cancel what a layer computes it is left out, see `ImagePooling`.
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
    """Logits at full resolution, from context at 1/16 and details at 1/4 of the resolution.

    With nnU-Net's usual 2D plan (strides 1, 2, 2, 2, 2, 2, 2, features 32, 64, 128, 256, 512, 512, 512, one input
    channel, four classes) it has 23,969,892 parameters. As with every network with instance norm, the input must be
    large enough to leave more than one position at 1/16.

    Args:
        input_channels: number of image channels.
        num_classes: C, the number of logits.
        conv_op: nn.Conv2d or nn.Conv3d.
        strides: stride of each stage, as in nnU-Net's plans; the first must be 1 along all axes. Along an axis that
            has reached 1/16 a stage dilates instead. The first convolution already has the stride of the second
            stage, as in MobileNetV2, so that no part of the encoder runs at full resolution.
        features_per_stage: number of output channels of each stage.
        norm_op: the norm; None means instance norm.
        norm_op_kwargs: arguments of the norm; None means nnU-Net's, with learned scale and shift.
        dropout: probability that an element of the context is dropped in training; 0.5 as in the code of the
            Streaming paper.
        deep_supervision: return a list of logits, see `DeepLabDecoder`.
        atrous_rates: dilation of each of the three atrous branches, in positions of the context's grid, as one number
            or one per axis. The paper's rates are for large images; `atrous_rates_for` adapts them to a patch.
        blocks_per_stage: number of inverted residual blocks of each stage except the first.
        expansion: factor by which a block is wider inside.

    Raises:
        ValueError: if there are fewer than two stages, the first one has a stride, or the lists differ in length.
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

        The size need not be a multiple of the strides.
        """
        low_level, context = self.encoder(image)
        return self.decoder(low_level, context, image.shape[2:])


class DeepLabEncoder(nn.Module):
    """Inverted residual blocks, then atrous spatial pyramid pooling (ASPP) and dropout.

    Args:
        layers: builds the convolutions.
        input_channels: number of image channels.
        strides: stride of each stage, per axis.
        features_per_stage: number of output channels of each stage.
        rates: dilation of each atrous branch, per axis.
        dropout: probability that an element of the context is dropped in training.
        blocks_per_stage: number of blocks of each stage except the first, which is one convolution.
        expansion: factor by which blocks are wider inside, except those of the second stage, as in MobileNetV2.

    Attributes:
        low_level_stage: index of the stage whose output the decoder uses: the last one before the deepest that is at
            1/4 or finer along all axes.
        low_level_channels: number of channels of that output.
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
        """(B, channels, *spatial) to low-level features at about 1/4 and the context (B, 256, *coarse)."""
        features = image
        low_level = image
        for index, stage in enumerate(self.stages):
            features = stage(features)
            if index == self.low_level_stage:
                low_level = features
        return low_level, self.dropout(self.pyramid(features))


class DeepLabDecoder(nn.Module):
    """Turns context and low-level features into logits.

    Args:
        layers: builds the convolutions.
        low_level_channels: number of channels of the encoder's features at about 1/4.
        num_classes: C, the number of logits.
        strides: stride of each stage of nnU-Net's plans, per axis.
        deep_supervision: return as many logits as nnU-Net's decoder, one for each stage except the deepest at its
            resolution. They are the full-resolution logits averaged over areas and have no weights of their own. Can
            be changed later.
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
            low_level: (B, low-level channels, *spatial) at about 1/4 of the resolution.
            context: (B, 256, *coarse).
            size: spatial shape of the image.
        """
        details = self.reduce(low_level)
        context = F.interpolate(context, size=details.shape[2:], mode=self.mode)
        logits = self.classify(self.refine(torch.cat([details, context], dim=1)))
        logits = F.interpolate(logits, size=tuple(size), mode=self.mode)
        if not self.deep_supervision:
            return logits
        outputs = [logits]
        for stride in self.strides[1:-1]:  # the last stride leads to the bottleneck, which has no logits
            size = [-(-length // step) for length, step in zip(size, stride, strict=True)]
            outputs.append(F.interpolate(logits, size=size, mode="area"))
        return outputs


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expansion by a 1x1 convolution, a depthwise 3x3 convolution, and a linear projection.

    The input is added to the output if both have the same shape. If another 1x1 convolution with instance norm
    follows, the shift of the projection's norm has no effect and no gradient, because that norm subtracts it.

    Args:
        layers: builds the convolutions.
        input_channels: number of input channels.
        output_channels: number of output channels.
        stride: stride of the depthwise convolution, per axis.
        dilation: dilation of the depthwise convolution, per axis.
        expansion: factor by which the block is wider inside; 1 leaves out the first convolution.
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
    """ASPP (arXiv 1706.05587): a 1x1 and several atrous 3x3 convolutions and image pooling, joined by a 1x1 one.

    The joining convolution has no instance norm: it would subtract each channel's mean over the image, and with it
    everything that image pooling contributes, which is the same at every position.

    Args:
        layers: builds the convolutions.
        input_channels: number of channels of the encoder's last stage.
        output_channels: number of channels of each branch and of the result.
        rates: dilation of each atrous branch, per axis.
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
    """The mean over the image, passed through a 1x1 convolution and repeated at every position.

    Two things differ from DeepLab, both because of instance norm. No norm follows the convolution: each channel has a
    single value here, and subtracting its mean would give 0. The mean is taken after a non-linearity: the encoder's
    last layer is linear and normalised, so its mean is a learned constant that does not depend on the image.
    """

    def __init__(self, layers: Layers, input_channels: int, output_channels: int) -> None:
        super().__init__()
        self.activate = nn.LeakyReLU(LEAKY_SLOPE)  # not in place: the other branches need the features
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
        norm_op: the norm; None means instance norm.
        norm_op_kwargs: arguments of the norm; None means nnU-Net's.
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
        """A convolution followed by a norm; the output size is the input size divided by the stride, rounded up."""
        dilation = per_axis(dilation, self.dimensions)
        convolution = self.conv_op(
            input_channels,
            output_channels,
            kernel_size,
            stride=per_axis(stride, self.dimensions),
            padding=tuple(step * (kernel_size // 2) for step in dilation),
            dilation=dilation,
            groups=groups,
            bias=False,  # the norm has a shift
        )
        return nn.Sequential(convolution, self.norm_op(output_channels, **self.norm_op_kwargs))

    def plain(self, input_channels: int, output_channels: int) -> nn.Module:
        """A 1x1 convolution with a bias and no norm."""
        return self.conv_op(input_channels, output_channels, 1)

    @staticmethod
    def nonlinearity() -> nn.Module:
        """nnU-Net's non-linearity, a leaky ReLU."""
        return nn.LeakyReLU(LEAKY_SLOPE, inplace=True)
