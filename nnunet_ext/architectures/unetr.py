"""UNETR (arXiv 2103.10504): MONAI's network for any image size, with its decoder's levels."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets.unetr import UNETR
from monai.networks.nets.vit import ViT
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_ext.architectures.backbone import Axes, LevelFeatures, LevelNetwork

TOKEN = 16  # voxels of a token along each axis
HEADS = 12  # of the attention; the paper's ViT-B
SKIPS = (3, 6, 9)  # layers of the transformer whose output the decoder uses, the finest level first


class UNETRLevels(LevelNetwork):
    """A vision transformer of twelve layers on tokens of 16 voxels per axis, and a convolutional decoder.

    Position embeddings are learned for the patch size; for an image of another size they are interpolated.

    Args:
        input_channels: number of image channels.
        outputs: C, the number of logits.
        patch_size: size of the images in training, per axis.
        filters: number of channels of the decoder's finest level.
        hidden: number of channels of a token, a multiple of 12.
    """

    separate_heads = True

    def __init__(
        self, input_channels: int, outputs: int, *, patch_size: Sequence[int], filters: int, hidden: int
    ) -> None:
        super().__init__()
        axes = len(patch_size)
        self.grid = tuple(-(-length // TOKEN) for length in patch_size)
        self.unetr = UNETR(
            input_channels,
            outputs,
            img_size=[TOKEN * length for length in self.grid],
            feature_size=filters,
            hidden_size=hidden,
            mlp_dim=4 * hidden,
            num_heads=HEADS,
            spatial_dims=axes,
        )
        without_cross_attention(self.unetr.vit)
        self.multiple: Axes = (TOKEN,) * axes
        self.level_strides = [(stride,) * axes for stride in (2, 4, 8)]
        self.steps: list[Axes] = [(1,) * axes, *[(2,) * axes] * 4]
        self.encoder_channels = [filters, 2 * filters, 4 * filters, 8 * filters]
        self.decoder_channels = [*self.encoder_channels, hidden]

    def features(self, image: Tensor) -> LevelFeatures:
        """See `LevelNetwork`; the bottleneck is the transformer's output."""
        net = self.unetr
        bottleneck, (half, quarter, eighth) = self.transformed(image)
        encoder = [net.encoder1(image), net.encoder2(half), net.encoder3(quarter), net.encoder4(eighth)]
        eighth = net.decoder5(bottleneck, encoder[3])
        quarter = net.decoder4(eighth, encoder[2])
        half = net.decoder3(quarter, encoder[1])
        full = net.decoder2(half, encoder[0])
        return LevelFeatures(net.out(full), encoder, [full, half, quarter, eighth, bottleneck])

    def transformed(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The transformer's output and those of the layers for the decoder, each (B, hidden, *spatial / 16)."""
        vit = self.unetr.vit
        tokens = vit.patch_embedding.patch_embeddings(image)
        grid = tokens.shape[2:]
        features = (tokens + self.positions(grid)).flatten(2).transpose(1, 2)  # (B, tokens, hidden)
        skips = []
        for index, block in enumerate(vit.blocks):
            features = block(features)
            if index in SKIPS:
                skips.append(features.transpose(1, 2).unflatten(2, grid))
        return vit.norm(features).transpose(1, 2).unflatten(2, grid), skips

    def positions(self, grid: Sequence[int]) -> Tensor:
        """The position embeddings (1, hidden, *grid)."""
        learned = self.unetr.vit.patch_embedding.position_embeddings.transpose(1, 2).unflatten(2, self.grid)
        if tuple(grid) == self.grid:
            return learned
        return F.interpolate(learned, size=tuple(grid), mode="bilinear" if len(grid) == 2 else "trilinear")


def without_cross_attention(transformer: ViT) -> None:
    """Removes what MONAI builds for a cross-attention that its transformer does not have.

    Those weights get no gradient, which stops a training on several GPUs, and they depend on MONAI's version.
    """
    for block in transformer.blocks:
        block.cross_attn, block.norm_cross_attn = nn.Identity(), nn.Identity()
