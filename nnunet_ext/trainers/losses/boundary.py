"""Boundary loss: how far from the truth's boundary a voxel is called foreground."""

from __future__ import annotations

from nnunet_ext.losses.added_terms import AddedTerm
from nnunet_ext.losses.boundary import SIGNED_DISTANCE, BoundaryTerm, SignedDistanceOfTarget
from nnunet_ext.losses.ramps import LinearRamp, Ramp, RebalanceRamp
from nnunet_ext.trainers.losses.dataset_form import output_form
from nnunet_ext.trainers.losses.loss_term import LossTermPart


class Boundary(LossTermPart):
    """Takes a share of the loss that rises to 35 % at the end of the training (arXiv 1812.07032, with another ramp).

    Half of the loss from 60 % of the training on, as challenge entries have it, cost Dice on validation patients.
    """

    boundary_ramp: Ramp = LinearRamp(0, 0.35)

    def loss_terms(self) -> list[AddedTerm]:
        """The terms of other parts and this one."""
        form = output_form(self)
        distance = SignedDistanceOfTarget(form, self.label_manager.num_segmentation_heads, self.patch_spacing_mm)
        term = AddedTerm(
            "Boundary", BoundaryTerm(form), self.boundary_ramp, {SIGNED_DISTANCE: distance}, replaces_base=True
        )
        return [*super().loss_terms(), term]


class BoundaryRebalance(Boundary):
    """The same with the paper's ramp: one hundredth of the loss more in each epoch."""

    boundary_ramp = RebalanceRamp()
