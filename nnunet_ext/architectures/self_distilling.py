"""A network with heads on its levels in training; in evaluation mode and in checkpoints, the plain network."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from nnunet_ext.architectures.around_plain import AroundPlainNetwork
from nnunet_ext.architectures.backbone import cropped
from nnunet_ext.architectures.distillation_heads import LevelHeads
from nnunet_ext.architectures.feature_taps import taps_of
from nnunet_ext.losses.self_distillation_objective import DistillationOutput


class SelfDistillingNetwork(AroundPlainNetwork):
    """A plain network with distillation heads.

    In evaluation mode it returns what the plain network returns. Its state dict is that of the plain network, so that
    every checkpoint loads without the heads; the heads' is `distillation_heads.state_dict()`.

    Args:
        plain: a network that `taps_of` accepts.
        segmentation_heads: heads that return logits.
        vector_heads: heads that return vectors; may have no levels.
        full_resolution: whether the heads bring the logits to the resolution of the image; they are then cropped to
            it. On the levels' own grids they cover what the network pads the image to.
    """

    distillation_heads: nn.ModuleDict

    def __init__(
        self,
        plain: nn.Module,
        segmentation_heads: LevelHeads,
        vector_heads: LevelHeads,
        *,
        full_resolution: bool = False,
    ) -> None:
        super().__init__(plain)
        self.full_resolution = full_resolution
        self.distillation_heads = nn.ModuleDict({"segmentation": segmentation_heads, "vectors": vector_heads})

    def forward(self, image: Tensor) -> Any:
        """(B, channels, *spatial) to a `DistillationOutput` in training, else to the plain network's output."""
        if not self.training:
            return self.plain(image)
        encoder, decoder, segmentation = taps_of(self.plain)(image)
        logits = self.distillation_heads["segmentation"](encoder, decoder)
        if self.full_resolution:
            logits = [[cropped(level, image.shape[2:]) for level in side] for side in logits]
        vectors = self.distillation_heads["vectors"](encoder, decoder)
        return DistillationOutput(segmentation, *logits, *vectors)
