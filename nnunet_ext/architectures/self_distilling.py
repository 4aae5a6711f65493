"""A U-Net in training with heads on its levels; in evaluation, and on the disk, the U-Net alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nnunet_ext.architectures.distillation_heads import LevelHeads
from nnunet_ext.architectures.feature_taps import tap_features
from nnunet_ext.losses.self_distillation_objective import DistillationOutput


class SelfDistillingUNet(nn.Module):
    """A plain network with distillation heads.

    In evaluation mode it returns what the plain network returns. Its state dict is the plain network's, too, so that
    every checkpoint loads without the heads; theirs is `distillation_heads.state_dict()`.

    Args:
        plain: a U-Net of nnU-Net.
        segmentation_heads: give logits.
        vector_heads: give vectors; may have no levels.
    """

    plain: Any
    distillation_heads: nn.ModuleDict

    def __init__(self, plain: nn.Module, segmentation_heads: LevelHeads, vector_heads: LevelHeads) -> None:
        super().__init__()
        self.plain = plain
        self.distillation_heads = nn.ModuleDict({"segmentation": segmentation_heads, "vectors": vector_heads})

    def forward(self, image: Tensor) -> Any:
        """(B, channels, *spatial) to a `DistillationOutput` in training, else to what the plain network returns."""
        if not self.training:
            return self.plain(image)
        encoder, decoder, segmentation = tap_features(self.plain, image)
        logits = self.distillation_heads["segmentation"](encoder, decoder)
        vectors = self.distillation_heads["vectors"](encoder, decoder)
        return DistillationOutput(segmentation, *logits, *vectors)

    @property
    def encoder(self) -> nn.Module:
        """The plain network's."""
        return self.plain.encoder

    @property
    def decoder(self) -> nn.Module:
        """The plain network's; nnU-Net switches deep supervision here."""
        return self.plain.decoder

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The plain network's weights."""
        return self.plain.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads the plain network's weights and leaves the heads as they are."""
        return self.plain.load_state_dict(state_dict, strict=strict, assign=assign)
