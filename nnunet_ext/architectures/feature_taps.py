"""The features inside a U-shaped network along with its output; without hooks, so that torch.compile sees one graph.

nnU-Net's U-Nets are read from outside. Any other network returns its taps from a method `feature_taps()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

ENCODER_ATTRIBUTES = ("output_channels", "strides", "conv_op")
DECODER_ATTRIBUTES = ("transpconvs", "stages", "seg_layers", "deep_supervision")
FEWEST_LEVELS = 3

Axes = tuple[int, ...]  # one number per spatial axis


class Encoder(Protocol):
    """nnU-Net's encoder, which returns the features of all levels."""

    output_channels: Sequence[int]
    strides: Sequence[Sequence[int]]
    conv_op: type[nn.Module]

    def __call__(self, image: Tensor) -> Sequence[Tensor]:
        """The features of an image (B, channels, *spatial), the bottleneck's last."""


class Decoder(Protocol):
    """nnU-Net's decoder; its lists begin with the coarsest level."""

    transpconvs: Any
    stages: Any
    seg_layers: Any
    deep_supervision: bool


class UNet(Protocol):
    """A network with nnU-Net's encoder and decoder: PlainConvUNet, ResidualEncoderUNet."""

    encoder: Encoder
    decoder: Decoder


class Features(NamedTuple):
    """The features of a network with n levels, and its output; level 0 has the resolution of the image.

    Attributes:
        encoder: E_0 ... E_{n-2}, each (B, channels, *spatial).
        decoder: D_0 ... D_{n-1}. D_l has the grid of E_l; D_{n-1}, the coarsest, is the bottleneck of most networks.
        segmentation: the logits that the network returns: (B, C, *spatial), or a list of them with deep supervision,
            the finest first.
    """

    encoder: Sequence[Tensor]
    decoder: Sequence[Tensor]
    segmentation: Tensor | list[Tensor]


@dataclass(frozen=True)
class Levels:
    """What is known of a network's features before an image is there.

    Attributes:
        encoder_channels: number of channels of E_0 ... E_{n-2}.
        decoder_channels: number of channels of D_0 ... D_{n-1}.
        strides: stride of each of the n levels against the next finer one, per axis; 1 along all axes for level 0.
        conv_op: nn.Conv2d or nn.Conv3d.
        separate_heads: whether E_l and D_l get a distillation head each where the released code has this network.
        multiple: features are those of the image with zeros behind it, up to a multiple of this size per axis; empty
            if the network does not pad.
    """

    encoder_channels: Sequence[int]
    decoder_channels: Sequence[int]
    strides: Sequence[Axes]
    conv_op: type[nn.Module]
    separate_heads: bool = False
    multiple: Axes = ()

    def channels(self, side: str, level: int) -> int:
        """Number of channels of a level of one side, "encoder" or "decoder"."""
        return (self.encoder_channels if side == "encoder" else self.decoder_channels)[level]


class FeatureTaps(Protocol):
    """Runs a network and returns the features of its levels along with its output."""

    levels: Levels

    def __call__(self, image: Tensor) -> Features:
        """The features of an image (B, channels, *spatial)."""


class UNetTaps:
    """The taps of nnU-Net's U-Nets.

    Args:
        network: a network for which `is_unet` holds.
    """

    def __init__(self, network: UNet) -> None:
        encoder = network.encoder
        self.network = network
        self.levels = Levels(
            encoder_channels=tuple(encoder.output_channels[:-1]),
            decoder_channels=tuple(encoder.output_channels),
            strides=[tuple(stride) for stride in encoder.strides],
            conv_op=encoder.conv_op,
        )

    def __call__(self, image: Tensor) -> Features:
        """See `FeatureTaps`."""
        decoder = self.network.decoder
        *skips, feature = self.network.encoder(image)
        coarsest_first = [feature]
        for upsample, stage, skip in zip(decoder.transpconvs, decoder.stages, reversed(skips), strict=True):
            feature = stage(torch.cat((upsample(feature), skip), dim=1))
            coarsest_first.append(feature)
        return Features(skips, coarsest_first[::-1], segment(decoder, coarsest_first[1:]))


def segment(decoder: Decoder, decoded: Sequence[Tensor]) -> Tensor | list[Tensor]:
    """The logits of decoder features (coarsest first), in the form in which the decoder itself returns them."""
    if not decoder.deep_supervision:
        return decoder.seg_layers[-1](decoded[-1])
    return [layer(feature) for layer, feature in zip(decoder.seg_layers, decoded, strict=True)][::-1]


def taps_of(network: nn.Module) -> FeatureTaps:
    """The taps of a network: those of its method `feature_taps()` if it has one, else those of nnU-Net's U-Net.

    Raises:
        ValueError: if it is neither, or has fewer than three levels.
    """
    own = getattr(network, "feature_taps", None)
    if own is None and not is_unet(network):
        raise ValueError(
            f"Self-distillation needs a U-Net with nnU-Net's encoder and decoder (PlainConvUNet, "
            f"ResidualEncoderUNet), or a network with feature taps (SegResNet, VNet, UNETR, SwinUNETR, LCOVNet); "
            f"found {type(network).__name__}. Leave the part out, or use other plans."
        )
    taps: FeatureTaps = UNetTaps(cast(UNet, network)) if own is None else own()
    levels = len(taps.levels.strides)
    if levels < FEWEST_LEVELS:
        raise ValueError(
            f"Self-distillation needs a U-Net with at least {FEWEST_LEVELS} levels, so that the teacher has a "
            f"student; found {levels}. Raise n_stages in the plans."
        )
    return taps


def is_unet(network: nn.Module) -> bool:
    """Whether a network has nnU-Net's encoder and decoder."""
    encoder, decoder = getattr(network, "encoder", None), getattr(network, "decoder", None)
    has_encoder = all(hasattr(encoder, name) for name in ENCODER_ATTRIBUTES)
    return has_encoder and all(hasattr(decoder, name) for name in DECODER_ATTRIBUTES)
