"""V-Net (arXiv 1606.04797) from MONAI's blocks, with nnU-Net's strides per axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.nets.vnet import DownTransition, InputTransition, OutputTransition, UpTransition
from torch import Tensor, nn

from nnunet_ext.architectures.backbone import CONV_BY_AXES, Axes, LevelFeatures, LevelNetwork, total_strides

CONVOLUTIONS_DOWN = (1, 2, 3, 2)  # of each stage after the first, as MONAI has them
CONVOLUTIONS_UP = (1, 1, 2, 2)  # of each level, the finest first
FIRST_DROPOUT = 2  # the deepest two of the paper's four transitions drop channels
DROPOUT = 0.5
ACTIVATION = ("elu", {"inplace": True})
TRANSPOSED_BY_AXES: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class VNetLevels(LevelNetwork):
    """An encoder of up to five stages with 5x5x5 convolutions, residual connections, batch norm and dropout.

    Channels double from stage to stage. Where all strides are 2 and there are five stages it is MONAI's `VNet`.

    Args:
        input_channels: number of image channels.
        outputs: C, the number of logits.
        strides: stride of each stage, per axis; those of the first five stages are used.
        filters: the least number of channels of the first stage. It is rounded up to a multiple of the image
            channels, which the first residual connection repeats.
    """

    separate_heads = True

    def __init__(self, input_channels: int, outputs: int, *, strides: Sequence[Axes], filters: int) -> None:
        super().__init__()
        steps = list(strides[: len(CONVOLUTIONS_DOWN) + 1])
        axes = len(steps[0])
        first = -(-filters // input_channels) * input_channels
        channels = [first * 2**stage for stage in range(len(steps))]

        self.enter = InputTransition(axes, input_channels, first, ACTIVATION)
        self.down = nn.ModuleList(
            down_transition(channels[stage], stride, CONVOLUTIONS_DOWN[stage], drops=stage >= FIRST_DROPOUT)
            for stage, stride in enumerate(steps[1:])
        )
        self.up = nn.ModuleList(
            up_transition(
                min(4 * channels[level], channels[-1]),
                2 * channels[level],
                steps[level + 1],
                CONVOLUTIONS_UP[level],
                drops=level >= FIRST_DROPOUT,
            )
            for level in reversed(range(len(steps) - 1))
        )
        self.classify = OutputTransition(axes, 2 * first, outputs, ACTIVATION)
        totals = total_strides(steps)
        self.multiple = totals[-1]
        self.level_strides = totals[1:-1]
        self.steps = steps
        self.encoder_channels = channels[:-1]
        self.decoder_channels = [*(2 * width for width in channels[:-1]), channels[-1]]

    def features(self, image: Tensor) -> LevelFeatures:
        """See `LevelNetwork`."""
        features = self.enter(image)
        skips = []
        for down in self.down:
            skips.append(features)
            features = down(features)
        decoded = [features]
        for up, skip in zip(self.up, reversed(skips), strict=True):
            features = up(features, skip)
            decoded.insert(0, features)
        return LevelFeatures(self.classify(decoded[0]), skips, decoded)


def down_transition(channels: int, stride: Axes, convolutions: int, *, drops: bool) -> DownTransition:
    """MONAI's transition to a coarser stage with twice the channels, with a stride per axis."""
    axes = len(stride)
    probability = DROPOUT if drops else None
    block = DownTransition(axes, channels, convolutions, ACTIVATION, probability, dropout_dim=axes)
    block.down_conv = CONV_BY_AXES[axes](channels, 2 * channels, stride, stride, bias=False)
    return block


def up_transition(inputs: int, outputs: int, stride: Axes, convolutions: int, *, drops: bool) -> UpTransition:
    """MONAI's transition to a finer level, with a stride per axis; half of the output's channels are the skip's."""
    axes = len(stride)
    probabilities = (DROPOUT if drops else None, DROPOUT)
    block = UpTransition(axes, inputs, outputs, convolutions, ACTIVATION, probabilities, dropout_dim=axes)
    block.up_conv = TRANSPOSED_BY_AXES[axes](inputs, outputs // 2, stride, stride)
    return block
