"""A U-Net whose encoder makes a vector of each crop of an image (VoCo, arXiv 2402.17300)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnunet_ext.architectures.around_plain import AroundPlainNetwork

DECODER_OF_ENCODER = "encoder."  # nnU-Net's decoder holds the encoder as well


class CropEmbedding(AroundPlainNetwork):
    """The means of all encoder levels over a crop, through three linear layers.

    Norms are those over all crops of a batch, without parameters and running statistics. The decoder is not used: it
    is frozen and keeps its initial weights. The state dict is that of the plain network; that of the linear layers is
    `projection.state_dict()`.

    Args:
        plain: nnU-Net's PlainConvUNet or ResidualEncoderUNet.
        features: of the hidden layers and of the vector.
    """

    projection: nn.Sequential

    def __init__(self, plain: nn.Module, features: int) -> None:
        super().__init__(plain)
        self.projection = nn.Sequential(
            nn.Linear(sum(self.plain.encoder.output_channels), features),
            nn.BatchNorm1d(features, affine=False, track_running_stats=False),
            nn.ReLU(inplace=True),
            nn.Linear(features, features),
            nn.BatchNorm1d(features, affine=False, track_running_stats=False),
            nn.ReLU(inplace=True),
            nn.Linear(features, features),
        )
        for name, parameter in self.plain.decoder.named_parameters():
            if not name.startswith(DECODER_OF_ENCODER):
                parameter.requires_grad_(False)  # DDP fails on weights without gradient

    def forward(self, crops: Tensor) -> Tensor:
        """(B, crops, channels, *spatial) to (B, crops, features)."""
        levels = self.plain.encoder(crops.flatten(0, 1))
        means = torch.cat([level.flatten(2).mean(dim=2) for level in levels], dim=1)
        return self.projection(means).unflatten(0, crops.shape[:2])
