"""Region-related focal loss (Li et al., Medical Physics 2023, released code)."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor, nn

from nnunet_ext.losses.targets import OutputForm, probabilities_of

EPSILON = 1e-8


class RegionFocalLoss(nn.Module):
    """Mean over patches and foreground outputs of (l(p, g) + l(1 - p, 1 - g)) / 2.

    With I = sum(p g), R = sum(g) and S = sum(p) + sum(g), l = 1 - (2 I + eps) F / (S + eps), where
    F = (ln beta + a ln((R + eps) / (I + eps))) / ln gamma and a = 1 - (I + eps) / (S + eps): a structure of which
    little is found counts more. At a perfect prediction a = 1/2 and F = ln 100 / ln 40 = 1.248, so that l is -0.248,
    not 0. A class that a patch lacks has l(p, g) close to 1 with hardly any gradient; l of the background, which has
    one, removes it.

    Args:
        form: of the target; ignored voxels are left out of all sums. A patch of which no voxel counts has the loss 0.
        beta: the paper's 100.
        gamma: the paper's 40.

    Raises:
        ValueError: if beta or gamma is not above 1.
    """

    def __init__(self, form: OutputForm, *, beta: float = 100.0, gamma: float = 40.0) -> None:
        super().__init__()
        if not (beta > 1 and gamma > 1):
            raise ValueError(f"beta and gamma must be above 1; found {beta} and {gamma}. The paper's are 100 and 40.")
        self.form = form
        self.log_beta = log(beta)
        self.log_gamma = log(gamma)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """A scalar, fp32.

        Args:
            logits: (B, C, *spatial).
            target: nnU-Net's, see `without_ignored`.

        Raises:
            ValueError: if the shapes do not fit.
        """
        truth, known = self.form.truth(logits, target)
        outputs = probabilities_of(logits, regions=self.form.regions)
        p, g = self.form.of_foreground(outputs), self.form.of_foreground(truth)
        counted = torch.ones_like(p[:, :1]) if known is None else known
        inside = self.of_structure(counted * p, counted * g)
        outside = self.of_structure(counted * (1 - p), counted * (1 - g))
        seen = counted.flatten(start_dim=1).any(dim=1, keepdim=True)  # (B, 1)
        return (seen * (inside + outside) / 2).mean()

    def of_structure(self, p: Tensor, g: Tensor) -> Tensor:
        """l of each structure of each patch, (B, F)."""
        p, g = p.flatten(start_dim=2), g.flatten(start_dim=2)
        overlap, size = (p * g).sum(dim=2), g.sum(dim=2)
        both = p.sum(dim=2) + size
        a = 1 - (overlap + EPSILON) / (both + EPSILON)
        focus = (self.log_beta + a * ((size + EPSILON).log() - (overlap + EPSILON).log())) / self.log_gamma
        return 1 - (2 * overlap + EPSILON) * focus / (both + EPSILON)
