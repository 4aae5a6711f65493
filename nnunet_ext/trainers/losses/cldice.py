"""clDice: the overlap of centre lines, for vessels and other tubes."""

from __future__ import annotations

from nnunet_ext.losses.added_terms import AddedTerm
from nnunet_ext.losses.cldice import ClDiceTerm
from nnunet_ext.losses.ramps import LinearRamp, Ramp
from nnunet_ext.trainers.losses.dataset_form import output_form
from nnunet_ext.trainers.losses.loss_term import LossTermPart


class ClDice(LossTermPart):
    """Takes up to half of the loss from 30 to 60 % of the training (arXiv 2003.07311, with another ramp)."""

    cldice_ramp: Ramp = LinearRamp(0, 0.5, begin=0.3, end=0.6)
    cldice_iterations: int = 10

    def loss_terms(self) -> list[AddedTerm]:
        """The terms of other parts and this one."""
        term = ClDiceTerm(output_form(self), self.cldice_iterations)
        return [*super().loss_terms(), AddedTerm("ClDice", term, self.cldice_ramp, replaces_base=True)]
