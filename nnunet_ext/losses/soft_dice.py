"""Soft Dice as a term: what other terms are balanced against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nnunet_ext.losses.targets import OutputForm, mean_of_present


@dataclass(frozen=True)
class SoftDiceTerm:
    """1 - 2 sum(p g) / (sum(p) + sum(g)), the mean over the structures that a patch has; between 0 and 1.

    Attributes:
        form: of the target.
    """

    form: OutputForm

    def __call__(self, logits: Tensor, target: Tensor, *, epoch: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """See `LossTerm`."""
        found = self.form.foreground(logits, target)
        p, g = found.p.flatten(start_dim=2), found.g.flatten(start_dim=2)
        sizes = (p.sum(dim=2) + g.sum(dim=2)).clamp_min(1)
        return mean_of_present(1 - 2 * (p * g).sum(dim=2) / sizes, found.present)
