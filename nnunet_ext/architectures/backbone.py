"""Makes a network with decoder levels behave as nnU-Net's: any image size, and its switch of deep supervision."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_ext.architectures.feature_taps import Axes, Features, Levels
from nnunet_ext.losses.targets import padded

CONV_BY_AXES: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}


class LevelFeatures(NamedTuple):
    """The logits of a network, and the features that self-distillation reads; level 0 is at full resolution.

    Attributes:
        logits: (B, C, *spatial).
        encoder: E_0 ... E_{n-2}, each (B, channels, *spatial / its stride).
        decoder: D_0 ... D_{n-1}; D_l has the grid of E_l.
    """

    logits: Tensor
    encoder: list[Tensor]
    decoder: list[Tensor]


class LevelNetwork(nn.Module):
    """A network whose decoder has levels; the base class of those that `Backbone` wraps.

    Attributes:
        multiple: what the size of an image must be a multiple of, per axis.
        level_strides: how much coarser than the image each coarser level with deep supervision is, per axis, the
            finest level first.
        steps: stride of each of the n levels against the next finer one, per axis.
        encoder_channels: number of channels of E_0 ... E_{n-2}.
        decoder_channels: number of channels of D_0 ... D_{n-1}.
        separate_heads: see `Levels`.
    """

    multiple: Axes
    level_strides: Sequence[Axes]
    steps: Sequence[Axes]
    encoder_channels: Sequence[int]
    decoder_channels: Sequence[int]
    separate_heads = False

    def features(self, image: Tensor) -> LevelFeatures:
        """Logits at full resolution and the features of the levels.

        Args:
            image: (B, channels, *spatial), its size a multiple of `multiple`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define features().")

    def for_heads(self, features: Tensor) -> Tensor:
        """A level's features as a head of self-distillation sees them: what this network would classify."""
        return features


class Backbone(nn.Module):
    """Pads the image to what the network needs, crops the logits again, and supervises the decoder's levels.

    Args:
        network: the network.
        outputs: C, the number of logits.
        strides: stride of each stage of nnU-Net's plans, per axis; the list of logits has their sizes.
        deep_supervision: return a list of logits instead of those at full resolution. Can be changed later.
    """

    def __init__(
        self, network: LevelNetwork, outputs: int, strides: Sequence[Axes], *, deep_supervision: bool
    ) -> None:
        super().__init__()
        self.network = network
        self.decoder = LevelHeads(network, outputs, strides, deep_supervision=deep_supervision)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """(B, channels, *spatial) to logits (B, C, *spatial), or to a list of them, the finest first."""
        size = image.shape[2:]
        return self.segmentation(self.network.features(padded(image, self.network.multiple)), size)

    def segmentation(self, features: LevelFeatures, size: Sequence[int]) -> Tensor | list[Tensor]:
        """The output for an image of this spatial shape, from the features of the padded image."""
        logits = cropped(features.logits, size)
        if not self.decoder.deep_supervision:
            return logits
        return [logits, *self.decoder(features.decoder[1:], size)]

    def feature_taps(self) -> BackboneTaps:
        """The features of its levels; see `architectures.feature_taps.FeatureTaps`."""
        return BackboneTaps(self)


class BackboneTaps:
    """The taps of a `Backbone`; its features are those of the padded image."""

    def __init__(self, backbone: Backbone) -> None:
        network = backbone.network
        self.backbone = backbone
        self.levels = Levels(
            encoder_channels=network.encoder_channels,
            decoder_channels=network.decoder_channels,
            strides=network.steps,
            conv_op=CONV_BY_AXES[len(network.multiple)],
            separate_heads=network.separate_heads,
            multiple=network.multiple,
        )

    def __call__(self, image: Tensor) -> Features:
        """See `FeatureTaps`."""
        network = self.backbone.network
        found = network.features(padded(image, network.multiple))
        encoder, decoder = ([network.for_heads(level) for level in side] for side in (found.encoder, found.decoder))
        return Features(encoder, decoder, self.backbone.segmentation(found, image.shape[2:]))


class LevelHeads(nn.Module):
    """The logits of deep supervision: a 1x1 convolution for each coarser level of the network that is used.

    nnU-Net compares the logits of stage i with labels at the resolution of stage i of the plans, but for the deepest.
    Those logits are made from the network's level i, or from its coarsest level if it has fewer, and averaged over
    areas where the resolutions differ.

    Args:
        network: the network with its levels.
        outputs: C, the number of logits.
        strides: stride of each stage of the plans, per axis.
        deep_supervision: nnU-Net's switch.
    """

    def __init__(
        self, network: LevelNetwork, outputs: int, strides: Sequence[Axes], *, deep_supervision: bool
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.planned_strides = total_strides(strides)[1:-1]
        used = min(len(self.planned_strides), len(network.level_strides))
        self.level_strides = list(network.level_strides[:used])
        conv = CONV_BY_AXES[len(strides[0])]
        self.heads = nn.ModuleList(conv(channels, outputs, 1) for channels in network.decoder_channels[1 : used + 1])

    def forward(self, features: Sequence[Tensor], size: Sequence[int]) -> list[Tensor]:
        """Logits of the coarser levels at the sizes of the plans.

        Args:
            features: D_1 ... D_{n-1}, each (B, channels, *spatial); those without a head are not used.
            size: spatial shape of the image before padding.
        """
        by_level = [
            cropped(head(level), coarser(size, stride))
            for head, level, stride in zip(self.heads, features, self.level_strides, strict=False)
        ]
        outputs = []
        for index, stride in enumerate(self.planned_strides):
            logits, wanted = by_level[min(index, len(by_level) - 1)], coarser(size, stride)
            outputs.append(logits if logits.shape[2:] == wanted else F.interpolate(logits, size=wanted, mode="area"))
        return outputs


def cropped(values: Tensor, size: Sequence[int]) -> Tensor:
    """The first positions along each axis: (B, C, *spatial) to (B, C, *size)."""
    for axis, length in enumerate(size, start=2):
        values = values.narrow(axis, 0, length)
    return values


def coarser(size: Sequence[int], stride: Axes) -> Axes:
    """A size divided by a stride, rounded up."""
    return tuple(-(-length // step) for length, step in zip(size, stride, strict=True))


def total_strides(strides: Sequence[Axes]) -> list[Axes]:
    """How much coarser than the image each stage is, per axis, from the stride of each stage.

    Example:
        (1, 1), (1, 2), (2, 2) give (1, 1), (1, 2), (2, 4).
    """
    return list(accumulate(strides, product))


def product(first: Axes, second: Axes) -> Axes:
    """The product per axis."""
    return tuple(a * b for a, b in zip(first, second, strict=True))
