"""Pre-training without labels that restores corrupted images (Models Genesis, arXiv 1908.06912)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nnunet_ext.losses.reconstruction import explained_variance, reconstruction_error
from nnunet_ext.pretext.genesis import GenesisOptions, corrupted
from nnunet_ext.trainers.pretraining.base import Pretraining
from nnunet_ext.trainers.pretraining.pictures import Column


class ModelsGenesis(Pretraining):
    """Restores an image with shuffled voxels, changed grey values and painted regions; the whole image counts.

    The network is the planned one with one output per channel.
    """

    corruption: GenesisOptions = GenesisOptions()

    def inputs_and_targets(self, batch: Mapping[str, Any]) -> tuple[Tensor, list[Tensor]]:
        """The corrupted images (B, channels, *spatial); these again for the pictures, the images, what is counted."""
        images = batch["data"]
        changed = torch.stack([corrupted(image, self.corruption, self.generator) for image in images])
        return changed, [changed, images, self.present(batch)]

    def training_loss(self, outputs: Tensor, targets: list[Tensor]) -> Tensor:
        """Mean squared error over all voxels and channels, without those removed for anonymity."""
        return reconstruction_error(outputs, *targets[1:])

    def validation_figures(self, outputs: Tensor, targets: list[Tensor]) -> dict[str, float]:
        """The share of the images' variance that is restored; the first batch is also drawn."""
        changed, images, counted = targets
        self.draw(Column("seen", changed), Column("restored", outputs), Column("image", images))
        return {"explained variance": explained_variance(outputs, images, counted)}
