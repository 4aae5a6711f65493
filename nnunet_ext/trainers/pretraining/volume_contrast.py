"""Pre-training without labels that finds where a crop is from (VoCo, arXiv 2402.17300)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_ext.architectures.crop_embedding import CropEmbedding
from nnunet_ext.losses.volume_contrast import overlap_loss, separation_loss, similarities
from nnunet_ext.pretext.crops import CropGrid, crop_grid, crops_at
from nnunet_ext.trainers.part_state import PartWithState
from nnunet_ext.trainers.pretraining.base import Pretraining


class VoCo(PartWithState, Pretraining):
    """Learns vectors of crops: the similarity of a random crop to each crop of a grid must be their overlap.

    Only the encoder is trained. Every checkpoint stores the weights of the plain network as `network_weights`, with
    the initial decoder, and those of the layers after the encoder under their own key.
    """

    state_key = "projection"
    most_crops: int = 3  # base crops along an axis
    target_crops: int = 5  # random crops of an image
    vector_size: int = 2048

    def training_network(self, network: nn.Module) -> nn.Module:
        grid = self.grid  # refused before the training
        self.print_to_log_file(f"Crops: {list(grid.counts)} base crops of {list(grid.sides)} voxels.")
        return CropEmbedding(super().training_network(network), self.vector_size)

    @property
    def grid(self) -> CropGrid:
        """The base crops of a patch."""
        strides = np.prod(np.vstack(self.configuration_manager.pool_op_kernel_sizes), axis=0)
        return crop_grid(self.configuration_manager.patch_size, [int(stride) for stride in strides], self.most_crops)

    # --- steps ---

    def inputs_and_targets(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Base and target crops (B, base + target crops, channels, *spatial); overlaps (B, target, base crops)."""
        images, grid = batch["data"], self.grid
        base = grid.base_starts()
        crops, overlaps = [], []
        for image in images:
            targets = grid.random_starts(self.target_crops, self.generator)
            crops.append(crops_at(image, torch.cat((base, targets)), grid.sides))
            overlaps.append(grid.overlaps(targets))
        return torch.stack(crops), torch.stack(overlaps).to(images.device)

    def training_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Similarities must be overlaps, and base crops must differ from each other."""
        base, of_targets = self.base_and_targets(outputs)
        return overlap_loss(similarities(base, of_targets), targets) + separation_loss(base)

    def base_and_targets(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors (B, crops, features) of base crops, and those of target crops."""
        return vectors[:, : -self.target_crops], vectors[:, -self.target_crops :]

    def validation_figures(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """The mean error of the overlap, and how often the most similar base crop is that of the largest overlap."""
        similarity = similarities(*self.base_and_targets(outputs))
        found = similarity.argmax(dim=2) == targets.argmax(dim=2)
        return {
            "overlap error": float((similarity - targets).abs().mean()),
            "crops found": float(found.float().mean()),
        }

    # --- checkpoints ---

    @property
    def plain_network(self) -> nn.Module:
        return self.embedding_network.plain

    @property
    def embedding_network(self) -> CropEmbedding:
        """The network with its linear layers, without the wrappers of DDP and torch.compile."""
        return cast(CropEmbedding, super().plain_network)

    def part_state(self) -> dict[str, Any]:
        return self.embedding_network.projection.state_dict()

    def load_part_state(self, state: dict[str, Any]) -> None:
        self.embedding_network.projection.load_state_dict(state)
