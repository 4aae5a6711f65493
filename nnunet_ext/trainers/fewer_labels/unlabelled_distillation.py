"""Unlabelled: a student of Distill also learns what the teacher says of images without labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

from nnunet_ext.losses.added_terms import AddedTerm
from nnunet_ext.losses.distillation import TEACHER, UnlabelledTeacherTerm
from nnunet_ext.losses.ramps import ConstantRamp, Ramp
from nnunet_ext.teaching.case_file import teacher_folder
from nnunet_ext.teaching.record import WITHOUT_LABELS
from nnunet_ext.trainers.fewer_labels.distill import Distill, require_same_shapes
from nnunet_ext.trainers.fewer_labels.taught_cases import AUGMENTED, TaughtCases, with_teacher_moved
from nnunet_ext.trainers.fewer_labels.unlabelled_cases import dataset_of, unlabelled_batches, unlabelled_folder
from nnunet_ext.trainers.fewer_labels.unlabelled_part import UnlabelledPart
from nnunet_ext.trainers.losses.extra_targets import with_extras

NAME = "Unlabelled"


class Unlabelled(UnlabelledPart, Distill):
    """Adds w T^2 KL(teacher || student) on a batch of images without labels in each iteration, at full resolution.

    The probabilities are those that `nnunet_ext teach --unlabelled` wrote beside the preprocessed images. With w = 0
    no such image is loaded, and the training is that of `Distill`, bit for bit.

    Raises:
        ValueError: if the configuration is the second stage of a cascade; when the training begins, a `TeacherError`
            if an image has no probabilities, or those of a teacher that was trained on it.
        FileNotFoundError: when the training begins, if no image without labels was preprocessed.
    """

    unlabelled_term = NAME
    unlabelled_ramp: Ramp = ConstantRamp(0.5)  # as much as the teacher's share of the loss of labelled images

    def loss_terms(self) -> list[AddedTerm]:
        """The terms of other parts and this one."""
        self.divergence = UnlabelledTeacherTerm(
            lambda images: self.logits_of(self.network, images),
            self.teacher_temperature,
            regions=self.label_manager.has_regions,
        )
        return [*super().loss_terms(), AddedTerm(NAME, self.divergence, self.unlabelled_ramp, by_case=False)]

    def batches_without_labels(self) -> Iterator[dict[str, Any]]:
        """Batches whose "target" is a list with the teacher's probabilities at its end, (batch size, F, *patch)."""
        folder = teacher_folder(unlabelled_folder(Path(self.preprocessed_dataset_folder)))
        record = self.fitting_record(folder, WITHOUT_LABELS)
        cases = TaughtCases(dataset_of(self), folder, record.outputs, regions=record.regions)
        record.require_taught(folder, cases.identifiers, WITHOUT_LABELS)
        require_same_shapes(cases)
        self.print_to_log_file(f"{NAME}: {len(cases.identifiers)} images without labels, taught by {folder}.")
        return unlabelled_batches(self, cases, self.with_teacher)

    def with_teacher(self, transforms: ComposeTransforms) -> ComposeTransforms:
        """Transforms of the image that change the teacher's probabilities as well."""
        return with_extras(with_teacher_moved(transforms, self.channels_of_teacher), {TEACHER: AUGMENTED})

    def hand_over(self, batch: dict[str, Any] | None) -> None:
        """Gives images and probabilities to the term, or takes them away."""
        if batch is None:
            self.divergence.images = self.divergence.probabilities = None
        else:
            self.divergence.images = batch["data"].to(self.device, non_blocking=True)
            self.divergence.probabilities = batch["target"][-1].to(self.device, non_blocking=True)
