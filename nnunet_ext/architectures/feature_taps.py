"""Returns the features inside a U-Net along with its output; without hooks, so that torch.compile sees one graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

ENCODER_ATTRIBUTES = ("output_channels", "strides", "conv_op")
DECODER_ATTRIBUTES = ("transpconvs", "stages", "seg_layers", "deep_supervision")
FEWEST_LEVELS = 3


class Encoder(Protocol):
    """nnU-Net's encoder, which returns the features of all levels."""

    output_channels: Sequence[int]
    strides: Sequence[Sequence[int]]
    conv_op: type[nn.Module]

    def __call__(self, image: Tensor) -> Sequence[Tensor]:
        """The features E_0 ... E_{n-1} of an image (B, channels, *spatial)."""


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


class UNetFeatures(NamedTuple):
    """The features of a U-Net with n levels, and its output; level 0 has the resolution of the image.

    Attributes:
        encoder: E_0 ... E_{n-1}, each (B, channels, *spatial); the last is the bottleneck.
        decoder: D_0 ... D_{n-2}; D_l has the shape of E_l.
        segmentation: the logits that the network returns: (B, C, *spatial), or a list of them with deep supervision,
            the finest first.
    """

    encoder: Sequence[Tensor]
    decoder: Sequence[Tensor]
    segmentation: Tensor | list[Tensor]


def tap_features(network: UNet, image: Tensor) -> UNetFeatures:
    """Runs a U-Net and returns the features of every level.

    Args:
        network: a network that `as_unet` accepts.
        image: (B, channels, *spatial).
    """
    decoder = network.decoder
    skips = network.encoder(image)
    feature = skips[-1]
    decoded: list[Tensor] = []  # coarsest first
    for upsample, stage, skip in zip(decoder.transpconvs, decoder.stages, reversed(skips[:-1]), strict=True):
        feature = stage(torch.cat((upsample(feature), skip), dim=1))
        decoded.append(feature)
    return UNetFeatures(skips, decoded[::-1], segment(decoder, decoded))


def segment(decoder: Decoder, decoded: Sequence[Tensor]) -> Tensor | list[Tensor]:
    """The logits of decoder features (coarsest first), in the form in which the decoder itself returns them."""
    if not decoder.deep_supervision:
        return decoder.seg_layers[-1](decoded[-1])
    return [layer(feature) for layer, feature in zip(decoder.seg_layers, decoded, strict=True)][::-1]


def as_unet(network: nn.Module) -> UNet:
    """The network itself, if `tap_features` works on it.

    Raises:
        ValueError: if the network does not have nnU-Net's encoder and decoder, or has fewer than three levels.
    """
    if not is_unet(network):
        raise ValueError(
            f"Self-distillation needs a U-Net with nnU-Net's encoder and decoder (PlainConvUNet, "
            f"ResidualEncoderUNet); found {type(network).__name__}. Leave the part out, or use other plans."
        )
    unet = cast(UNet, network)
    levels = len(unet.encoder.output_channels)
    if levels < FEWEST_LEVELS:
        raise ValueError(
            f"Self-distillation needs a U-Net with at least {FEWEST_LEVELS} levels, so that the teacher has a "
            f"student; found {levels}. Raise n_stages in the plans."
        )
    return unet


def is_unet(network: nn.Module) -> bool:
    """Whether a network has nnU-Net's encoder and decoder."""
    encoder, decoder = getattr(network, "encoder", None), getattr(network, "decoder", None)
    has_encoder = all(hasattr(encoder, name) for name in ENCODER_ATTRIBUTES)
    return has_encoder and all(hasattr(decoder, name) for name in DECODER_ATTRIBUTES)
