"""Skeleton recall: the share of the truth's centre lines that is found."""

from __future__ import annotations

from nnunet_ext.losses.added_terms import AddedTerm
from nnunet_ext.losses.ramps import ConstantRamp, Ramp
from nnunet_ext.losses.skeleton_recall import SKELETON, SkeletonOfTarget, SkeletonRecallTerm
from nnunet_ext.trainers.losses.dataset_form import output_form
from nnunet_ext.trainers.losses.loss_term import LossTermPart


class SkeletonRecall(LossTermPart):
    """Adds the term with the weight 1 in all epochs (arXiv 2404.03010)."""

    skeleton_ramp: Ramp = ConstantRamp(1.0)

    def loss_terms(self) -> list[AddedTerm]:
        """The terms of other parts and this one."""
        form = output_form(self)
        skeleton = SkeletonOfTarget(form, self.label_manager.num_segmentation_heads)
        term = AddedTerm("SkeletonRecall", SkeletonRecallTerm(form), self.skeleton_ramp, {SKELETON: skeleton})
        return [*super().loss_terms(), term]
