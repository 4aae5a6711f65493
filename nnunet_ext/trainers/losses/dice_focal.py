"""Parts that replace nnU-Net's Dice and cross-entropy loss with Dice and focal loss."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

from nnunet_ext.losses.dice_focal import DiceFocalLoss, DiceForm, class_weights
from nnunet_ext.trainers.base import ExtTrainer

PAPER_ALPHA = 0.2  # for classes, whose focal term has positive voxels only
BALANCED_ALPHA = 0.5  # for regions, where 0.2 would give a positive voxel a quarter of the weight of a negative one


class DiceFocal(ExtTrainer):
    """Dice plus 10 times focal loss, the loss of Streaming (arXiv 2502.09269, Eq. 6).

    nnU-Net's deep supervision is kept. `focal_alpha` None means 0.2, the paper's value, for classes and 0.5 for
    regions.
    """

    dice_form: DiceForm = "proper"
    class_weight_by_label: Mapping[str | int, float] = MappingProxyType({})  # keys are names or labels; others get 1
    dice_weight: float = 1.0
    focal_weight: float = 10.0
    focal_gamma: float = 2.0
    focal_alpha: float | None = None

    def loss_of_one_output(self, planned: nn.Module) -> DiceFocalLoss:
        """The loss for this dataset's classes or regions, used in place of nnU-Net's."""
        regions = self.label_manager.has_regions
        alpha = (BALANCED_ALPHA if regions else PAPER_ALPHA) if self.focal_alpha is None else self.focal_alpha
        return DiceFocalLoss(
            regions=regions,
            ignore_label=self.label_manager.ignore_label,
            form=self.dice_form,
            class_weights=class_weights(self.dataset_json["labels"], self.class_weight_by_label),
            dice_weight=self.dice_weight,
            focal_weight=self.focal_weight,
            gamma=self.focal_gamma,
            alpha=alpha,
        )


class DiceFocalPaper(DiceFocal):
    """`DiceFocal` with the Dice of the released code, which lacks the factor 2."""

    dice_form = "paper"
