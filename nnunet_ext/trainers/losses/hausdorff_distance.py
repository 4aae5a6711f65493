"""Hausdorff loss by distance transforms, which contributes as much as soft Dice."""

from __future__ import annotations

from nnunet_ext.losses.added_terms import AddedTerm
from nnunet_ext.losses.hausdorff_distance import HausdorffDTTerm
from nnunet_ext.trainers.losses.balanced import with_balanced
from nnunet_ext.trainers.losses.dataset_form import output_form
from nnunet_ext.trainers.losses.loss_term import LossTermPart


class HausdorffDT(LossTermPart):
    """Adds the term with Karimi's balance (arXiv 1904.10030); the first epoch only measures it."""

    def loss_terms(self) -> list[AddedTerm]:
        """The terms of other parts and this one."""
        term = HausdorffDTTerm(output_form(self), self.patch_spacing_mm)
        return with_balanced(super().loss_terms(), "HausdorffDT", term, output_form(self))
