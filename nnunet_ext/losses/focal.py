"""Focal loss (Lin et al., ICCV 2017, arXiv 1708.02002, Eq. 4), MONAI's, with nnU-Net's targets."""

from __future__ import annotations

from math import inf

from monai.losses.focal_loss import FocalLoss as MonaiFocalLoss
from torch import Tensor, nn

from nnunet_ext.losses.targets import OutputForm, mean_of_counted


class FocalLoss(nn.Module):
    """Mean over voxels of -(1 - p_t)^gamma ln p_t, for regions over regions as well. 0 for a perfect prediction.

    Args:
        form: of the target; ignored voxels do not count. 0 if no voxel does.
        gamma: 0, which is cross-entropy, or at least 1: between them the slope at p_t = 1 is infinite. The paper's
            is 2.

    Raises:
        ValueError: if gamma is neither.
    """

    def __init__(self, form: OutputForm, *, gamma: float = 2.0) -> None:
        super().__init__()
        if not (gamma == 0 or 1 <= gamma < inf):
            raise ValueError(f"gamma must be 0 or at least 1; found {gamma}. The paper's is 2.")
        self.form = form
        self.focal = MonaiFocalLoss(gamma=gamma, use_softmax=not form.regions, reduction="none")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """A scalar, fp32.

        Args:
            logits: (B, C, *spatial).
            target: nnU-Net's, see `without_ignored`.

        Raises:
            ValueError: if the shapes do not fit.
        """
        truth, counted = self.form.truth(logits, target)
        terms = self.focal(logits.float(), truth)  # (B, C, *spatial); for classes 0 but for the true one
        by_voxel = terms.mean(dim=1, keepdim=True) if self.form.regions else terms.sum(dim=1, keepdim=True)
        return mean_of_counted(by_voxel, counted)
