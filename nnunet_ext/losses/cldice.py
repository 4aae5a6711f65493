"""clDice: overlap of centre lines (Shit et al., CVPR 2021, arXiv 2003.07311, Algorithms 1 and 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from monai.losses.cldice import soft_skel
from torch import Tensor

from nnunet_ext.losses.targets import OutputForm, mean_of_present

SMOOTH = 1e-6


@dataclass(frozen=True)
class ClDiceTerm:
    """1 - 2 T_prec T_sens / (T_prec + T_sens) of each structure, with T_prec = sum(S_p g) / sum(S_p) and T_sens =
    sum(S_g p) / sum(S_g), S the soft skeletons (MONAI's).

    It is 0 for a perfect prediction; a class that a patch lacks has neither value nor gradient.

    Attributes:
        form: of the target.
        iterations: of the skeletons, at least the largest radius of a structure in voxels.
    """

    form: OutputForm
    iterations: int = 10

    def __call__(self, logits: Tensor, target: Tensor, *, epoch: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """See `LossTerm`."""
        found = self.form.foreground(logits, target)
        precision = share(soft_skel(found.p, self.iterations), found.g)
        sensitivity = share(soft_skel(found.g, self.iterations), found.p)
        values = 1 - 2 * precision * sensitivity / (precision + sensitivity)  # (B, F)
        return mean_of_present(values, found.present)


def share(skeleton: Tensor, mask: Tensor) -> Tensor:
    """How much of a skeleton lies in a mask, both (B, F, *spatial): (B, F), more than 0."""
    inside, whole = ((part).flatten(start_dim=2).sum(dim=2) for part in (skeleton * mask, skeleton))
    return (inside + SMOOTH) / (whole + SMOOTH)
