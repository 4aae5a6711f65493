"""Euler characteristic: objects, tunnels and cavities as the truth has them."""

from __future__ import annotations

from nnunet_ext.losses.added_terms import AddedTerm
from nnunet_ext.losses.euler import EulerTerm
from nnunet_ext.losses.ramps import LinearRamp, Ramp
from nnunet_ext.trainers.losses.dataset_form import output_form
from nnunet_ext.trainers.losses.loss_term import LossTermPart


class Euler(LossTermPart):
    """Adds the term with a weight that rises to 0.01 from 60 to 80 % of the training."""

    euler_ramp: Ramp = LinearRamp(0, 0.01, begin=0.6, end=0.8)

    def loss_terms(self) -> list[AddedTerm]:
        """The terms of other parts and this one."""
        return [*super().loss_terms(), AddedTerm("Euler", EulerTerm(output_form(self)), self.euler_ramp)]
