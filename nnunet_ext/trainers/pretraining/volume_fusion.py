"""Pre-training without labels as a segmentation of fusion coefficients (VolumeFusion, arXiv 2306.16925)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor

from nnunet_ext.pretext.fusion import FusionOptions, fused, random_classes
from nnunet_ext.trainers.pretraining.base import Pretraining
from nnunet_ext.trainers.pretraining.pictures import Column

SMOOTH = 1e-5


class VolumeFusion(Pretraining):
    """Finds out which of two fused images a voxel is from, and how much of it: a class per coefficient.

    The loaders give two images for each one of the batch. The network is the planned one with an output per class.
    """

    fusion: FusionOptions = FusionOptions()

    def set_hyperparameters(self) -> None:
        super().set_hyperparameters()
        self.dice_and_cross_entropy = DC_and_CE_loss(
            {"batch_dice": False, "smooth": SMOOTH, "do_bg": True, "ddp": False},
            {},
            dice_class=MemoryEfficientSoftDiceLoss,
        )

    def _set_batch_size_and_oversample(self) -> None:
        super()._set_batch_size_and_oversample()
        self.batch_size *= 2

    @staticmethod
    def get_training_transforms(*arguments: Any, **named: Any) -> BasicTransform:
        """nnU-Net's own, with changes of intensity, before the fusion."""
        return nnUNetTrainer.get_training_transforms(*arguments, **named)

    def outputs_for(self, channels: int) -> int:
        return self.fusion.classes

    def inputs_and_targets(self, batch: Mapping[str, Any]) -> tuple[Tensor, list[Tensor]]:
        """The first half of the batch fused with the second; this again for the pictures, and the classes."""
        foreground, background = batch["data"].chunk(2)
        shape = foreground.shape[2:]
        classes = torch.stack([random_classes(shape, self.fusion, self.generator) for _ in foreground])[:, None]
        classes = classes.to(foreground.device)
        image = fused(foreground, background, classes, self.fusion.steps)
        return image, [image, classes]

    def training_loss(self, outputs: Tensor, targets: list[Tensor]) -> Tensor:
        """Cross-entropy minus the Dice of all classes, per image."""
        return self.dice_and_cross_entropy(outputs.float(), targets[1])

    def validation_figures(self, outputs: Tensor, targets: list[Tensor]) -> dict[str, float]:
        """The share of voxels whose class is found; the first batch is also drawn."""
        image, classes = targets
        found = outputs.argmax(dim=1, keepdim=True)
        limits = (0.0, float(self.fusion.steps))
        self.draw(Column("fused", image), Column("found", found, limits), Column("coefficient", classes, limits))
        return {"accuracy": float((found == classes).float().mean())}
