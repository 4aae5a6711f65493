"""A U-Net that reconstructs hidden blocks of an image from a sparse encoder (S3D, arXiv 2410.23132)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_ext.architectures.around_plain import AroundPlainNetwork
from nnunet_ext.architectures.sparse_encoder import VisibleVoxels, require_sparse, visible_features
from nnunet_ext.masking.blocks import blocks_of
from nnunet_ext.masking.instance_norm import visible_instance_norm

TOKEN_DEVIATION = 0.02  # of the initial token, a normal distribution cut off at one standard deviation
KERNEL = 3


@dataclass(frozen=True)
class Densification:
    """How the features of the sparse encoder are made dense for the decoder.

    Attributes:
        mask_token: hidden voxels get a learnt vector per level instead of zeros.
        convolution: the features are normalised before, and pass a 3x3x3 convolution after that, except at level 0.
    """

    mask_token: bool = True
    convolution: bool = True


class DenseLevel(nn.Module):
    """Makes the features of one level dense: normalise, fill in the token, convolve.

    Args:
        channels: of the level.
        conv_op: nn.Conv2d or nn.Conv3d.
        full_resolution: whether it is level 0, which has no convolution.
        kind: what is done.
    """

    def __init__(self, channels: int, conv_op: Any, *, full_resolution: bool, kind: Densification) -> None:
        super().__init__()
        self.normalised = kind.convolution
        self.token = nn.Parameter(torch.empty(channels)) if kind.mask_token else None
        if self.token is not None:
            nn.init.trunc_normal_(self.token, std=TOKEN_DEVIATION, a=-TOKEN_DEVIATION, b=TOKEN_DEVIATION)
        convolves = kind.convolution and not full_resolution
        self.projection = conv_op(channels, channels, KERNEL, padding=KERNEL // 2) if convolves else nn.Identity()

    def forward(self, features: Tensor, visible: Tensor) -> Tensor:
        """(B, C, *spatial), zero where hidden, and (B, 1, *spatial) to (B, C, *spatial)."""
        if self.normalised:
            features = visible_instance_norm(features, visible)
        if self.token is not None:
            token = self.token.reshape(1, -1, *([1] * (features.ndim - 2)))
            features = features + (token * (1 - visible)).to(features.dtype)
        return self.projection(features)


class SparseMaskedAutoencoder(AroundPlainNetwork):
    """A plain U-Net whose encoder sees the visible blocks of an image only, and whose decoder fills in the others.

    Its state dict is that of the plain network. What makes the features dense is used in training only; its state
    dict is `densification.state_dict()`.

    Args:
        plain: nnU-Net's PlainConvUNet or ResidualEncoderUNet, with an output per channel of the image.
        block_size: voxels of a block along each axis.
        kind: how the features are made dense.

    Raises:
        ValueError: see `require_sparse`.
    """

    densification: nn.ModuleList

    def __init__(self, plain: nn.Module, block_size: Sequence[int], kind: Densification) -> None:
        super().__init__(plain)
        require_sparse(plain.encoder)  # type: ignore[arg-type]
        self.block_size = tuple(block_size)
        encoder = self.plain.encoder
        self.densification = nn.ModuleList(
            DenseLevel(channels, encoder.conv_op, full_resolution=level == 0, kind=kind)
            for level, channels in enumerate(encoder.output_channels)
        )

    def forward(self, image_and_mask: Tensor) -> Tensor:
        """The reconstruction of an image.

        Args:
            image_and_mask: (B, channels + 1, *spatial); the last channel is 1 for visible voxels, else 0.

        Returns:
            (B, channels, *spatial).
        """
        image, mask = image_and_mask[:, :-1], image_and_mask[:, -1:]
        visible = VisibleVoxels(blocks_of(mask, self.block_size))
        levels = visible_features(self.plain.encoder, image, visible)
        return self.plain.decoder(
            [
                dense(features, visible.like(features))
                for dense, features in zip(self.densification, levels, strict=True)
            ]
        )
