"""Region-related focal loss instead of nnU-Net's Dice and cross-entropy."""

from __future__ import annotations

from torch import nn

from nnunet_ext.losses.region_focal import RegionFocalLoss
from nnunet_ext.trainers.base import ExtTrainer
from nnunet_ext.trainers.losses.dataset_form import output_form


class RegionFocal(ExtTrainer):
    """Li et al., Medical Physics 2023, at nnU-Net's resolutions."""

    def loss_of_one_output(self, planned: nn.Module) -> RegionFocalLoss:
        """The loss for this dataset's classes or regions; nnU-Net's deep supervision stays around it."""
        return RegionFocalLoss(output_form(self))
