"""Focal loss instead of nnU-Net's Dice and cross-entropy."""

from __future__ import annotations

from torch import nn

from nnunet_ext.losses.focal import FocalLoss
from nnunet_ext.trainers.base import ExtTrainer
from nnunet_ext.trainers.losses.dataset_form import output_form


class Focal(ExtTrainer):
    """arXiv 1708.02002, at nnU-Net's resolutions."""

    def loss_of_one_output(self, planned: nn.Module) -> FocalLoss:
        """The loss for this dataset's classes or regions; nnU-Net's deep supervision stays around it."""
        return FocalLoss(output_form(self))
