"""A U-Net with heads on its levels in training; in evaluation mode and in checkpoints, the plain U-Net."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from nnunet_ext.architectures.around_plain import AroundPlainNetwork
from nnunet_ext.architectures.distillation_heads import LevelHeads
from nnunet_ext.architectures.feature_taps import tap_features
from nnunet_ext.losses.self_distillation_objective import DistillationOutput


class SelfDistillingUNet(AroundPlainNetwork):
    """A plain network with distillation heads.

    In evaluation mode it returns what the plain network returns. Its state dict is that of the plain network, so that
    every checkpoint loads without the heads; the heads' is `distillation_heads.state_dict()`.

    Args:
        plain: one of nnU-Net's U-Nets.
        segmentation_heads: heads that return logits.
        vector_heads: heads that return vectors; may have no levels.
    """

    distillation_heads: nn.ModuleDict

    def __init__(self, plain: nn.Module, segmentation_heads: LevelHeads, vector_heads: LevelHeads) -> None:
        super().__init__(plain)
        self.distillation_heads = nn.ModuleDict({"segmentation": segmentation_heads, "vectors": vector_heads})

    def forward(self, image: Tensor) -> Any:
        """(B, channels, *spatial) to a `DistillationOutput` in training, else to the plain network's output."""
        if not self.training:
            return self.plain(image)
        encoder, decoder, segmentation = tap_features(self.plain, image)
        logits = self.distillation_heads["segmentation"](encoder, decoder)
        vectors = self.distillation_heads["vectors"](encoder, decoder)
        return DistillationOutput(segmentation, *logits, *vectors)
