"""Marginal calibration error: confidences that agree with the share of voxels that are right."""

from __future__ import annotations

from nnunet_ext.losses.added_terms import AddedTerm
from nnunet_ext.losses.marginal_calibration import ACETerm, Binning
from nnunet_ext.losses.ramps import ConstantRamp, Ramp
from nnunet_ext.trainers.losses.dataset_form import output_form
from nnunet_ext.trainers.losses.loss_term import LossTermPart


class ACE(LossTermPart):
    """Adds the term with the weight 1 in all epochs and hard bins (arXiv 2403.06759)."""

    ace_ramp: Ramp = ConstantRamp(1.0)
    ace_binning: Binning = "hard"

    def loss_terms(self) -> list[AddedTerm]:
        """The terms of other parts and this one."""
        term = ACETerm(output_form(self), binning=self.ace_binning)
        return [*super().loss_terms(), AddedTerm("ACE", term, self.ace_ramp)]
