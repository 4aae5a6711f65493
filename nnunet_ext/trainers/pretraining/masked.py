"""Masked pre-training without labels: a dense auto-encoder (`MAE`) and a sparse one (`S3D`), arXiv 2410.23132."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_ext.architectures.masked_autoencoder import Densification, SparseMaskedAutoencoder
from nnunet_ext.losses.reconstruction import explained_variance, reconstruction_error
from nnunet_ext.masking.blocks import block_grid, hidden_blocks, random_ratio, random_visible_blocks, visible_voxels
from nnunet_ext.trainers.part_state import PartWithState
from nnunet_ext.trainers.pretraining.base import Pretraining
from nnunet_ext.trainers.pretraining.pictures import Column


class MaskedPretraining(Pretraining):
    """Hides blocks of an image and learns to reconstruct them; the loss counts hidden voxels only.

    The network is the planned one with one output per channel.
    """

    lowest_ratio: float = 0.6  # of hidden blocks, drawn once per batch
    highest_ratio: float = 0.9
    mask_percent: int | None = None  # a fixed share of hidden blocks
    mask_block: int | None = None  # voxels per axis; None for the size of one voxel of the bottleneck

    def as_pretrained(self, network: nn.Module) -> nn.Module:
        """The network to train.

        Raises:
            ValueError: if blocks and patch do not fit, and for what `Pretraining` refuses.
        """
        network = super().as_pretrained(network)
        hidden = hidden_blocks(self.grid, self.ratios[1])
        self.print_to_log_file(
            f"Masks: blocks of {list(self.block_size)} voxels, a grid of {list(self.grid)}; at most {hidden} hidden."
        )
        return network

    # --- masks ---

    @property
    def block_size(self) -> tuple[int, ...]:
        """Voxels of a block along each axis."""
        strides = np.prod(np.vstack(self.configuration_manager.pool_op_kernel_sizes), axis=0)
        return tuple(self.mask_block or int(stride) for stride in strides)

    @property
    def grid(self) -> tuple[int, ...]:
        """Blocks of a patch along each axis."""
        return block_grid(self.configuration_manager.patch_size, self.block_size)

    @property
    def ratios(self) -> tuple[float, float]:
        """The smallest and the largest share of hidden blocks."""
        if self.mask_percent is not None:
            return self.mask_percent / 100, self.mask_percent / 100
        return self.lowest_ratio, self.highest_ratio

    # --- steps ---

    def inputs_and_targets(self, batch: Mapping[str, Any]) -> tuple[Tensor, list[Tensor]]:
        """What the network sees; the image (B, channels, *spatial), its mask, and what the loss counts.

        Both masks are (B, 1, *spatial): 1 where visible, and 1 where hidden and not removed for anonymity.
        """
        image = batch["data"]
        ratio = random_ratio(*self.ratios, self.generator)
        blocks = random_visible_blocks(len(image), self.grid, ratio, self.generator)
        visible = visible_voxels(blocks.to(image.device), image.shape[2:])
        return self.network_input(image, visible), [image, visible, (1 - visible) * self.present(batch)]

    def network_input(self, image: Tensor, visible: Tensor) -> Tensor:
        """Hook: what the network gets of an image (B, channels, *spatial) and its mask (B, 1, *spatial)."""
        return image * visible

    def training_loss(self, outputs: Tensor, targets: list[Tensor]) -> Tensor:
        """Mean squared error over the hidden voxels of all channels, without those removed for anonymity."""
        image, _, counted = targets
        return reconstruction_error(outputs, image, counted)

    def validation_figures(self, outputs: Tensor, targets: list[Tensor]) -> dict[str, float]:
        """The share of the variance of hidden voxels that is reconstructed; the first batch is also drawn."""
        image, visible, counted = targets
        shown = visible > 0
        self.draw(
            Column("seen", image.masked_fill(~shown, -torch.inf)),  # black
            Column("filled in", torch.where(shown, image, outputs.to(image.dtype))),
            Column("image", image),
        )
        return {"explained variance": explained_variance(outputs, image, counted)}


class MAE(MaskedPretraining):
    """Dense masked auto-encoder: hidden voxels are zero in the image, and the planned network is used as it is."""


class S3D(PartWithState, MaskedPretraining):
    """Masked auto-encoder whose encoder sees visible voxels only.

    Every checkpoint stores the weights of the plain network as `network_weights`, and those of the densification
    under their own key.
    """

    state_key = "densification"
    uses_mask_token: bool = True
    uses_densify_conv: bool = True

    def training_network(self, network: nn.Module) -> nn.Module:
        kind = Densification(mask_token=self.uses_mask_token, convolution=self.uses_densify_conv)
        return SparseMaskedAutoencoder(super().training_network(network), self.block_size, kind)

    def network_input(self, image: Tensor, visible: Tensor) -> Tensor:
        """The mask is an additional channel; the network hides the voxels."""
        return torch.cat((image, visible), dim=1)

    @property
    def plain_network(self) -> nn.Module:
        return self.sparse_network.plain

    @property
    def sparse_network(self) -> SparseMaskedAutoencoder:
        """The network with its densification, without the wrappers of DDP and torch.compile."""
        return cast(SparseMaskedAutoencoder, super().plain_network)

    def part_state(self) -> dict[str, Any]:
        return self.sparse_network.densification.state_dict()

    def load_part_state(self, state: dict[str, Any]) -> None:
        self.sparse_network.densification.load_state_dict(state)
