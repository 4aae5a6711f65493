"""Distill: a student learns from the labels and from what a teacher says of cases that it has never seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

from nnunet_ext.losses.added_terms import AddedTerm
from nnunet_ext.losses.distillation import TEACHER, TeacherTerm
from nnunet_ext.losses.ramps import ConstantRamp, Ramp
from nnunet_ext.losses.region_affinity import RegionAffinityTerm
from nnunet_ext.teaching.case_file import teacher_folder
from nnunet_ext.teaching.packing import outputs_on_disk
from nnunet_ext.teaching.record import OUT_OF_FOLD, TeacherError, TeacherRecord
from nnunet_ext.trainers.fewer_labels.taught_cases import AUGMENTED, TaughtCases, with_teacher_moved
from nnunet_ext.trainers.losses.dataset_form import output_form
from nnunet_ext.trainers.losses.loss_term import LossTermPart


class Distill(LossTermPart):
    """(1 - a) L + a T^2 KL(teacher || student), where L is the loss without a teacher and the KL at full resolution.

    The probabilities are those that `nnunet_ext teach` wrote beside the preprocessed cases.

    Raises:
        ValueError: if a is above 1; when the training begins, a `TeacherError` if a case has no probabilities, or
            those of a teacher that was trained on it.
    """

    teacher_percent: int = 50  # 100 a
    teacher_temperature: int = 2
    region_affinity: bool = False
    affinity_ramp: Ramp = ConstantRamp(1.0)

    def set_hyperparameters(self) -> None:
        super().set_hyperparameters()
        if self.teacher_percent > 100:
            raise ValueError(
                f"The number in Distill<a> is the teacher's share of the loss in percent, at most 100; found "
                f"{self.teacher_percent}. Write Distill50, for example."
            )

    def loss_terms(self) -> list[AddedTerm]:
        """The terms of other parts and this one."""
        form, extras = output_form(self), {TEACHER: AUGMENTED}
        term = TeacherTerm(form, self.teacher_temperature)
        share = ConstantRamp(self.teacher_percent / 100)
        terms = [*super().loss_terms(), AddedTerm("Distill", term, share, extras, replaces_base=True)]
        if self.region_affinity:
            terms.append(AddedTerm("RegionAffinity", RegionAffinityTerm(form), self.affinity_ramp, extras))
        return terms

    def get_tr_and_val_datasets(self) -> tuple[TaughtCases, TaughtCases]:
        folder = teacher_folder(Path(self.preprocessed_dataset_folder))
        record = self.fitting_record(folder)
        taught = tuple(
            TaughtCases(dataset, folder, record.outputs, regions=record.regions)
            for dataset in super().get_tr_and_val_datasets()
        )
        for cases in taught:
            record.require_taught(folder, cases.identifiers)
            require_same_shapes(cases)
        self.print_to_log_file(f"Distill: the teacher's probabilities are those in {folder}.")
        return taught[0], taught[1]

    def fitting_record(self, folder: Path, remedy: str = OUT_OF_FOLD) -> TeacherRecord:
        """The record of the teacher.

        Args:
            folder: of the probabilities.
            remedy: sentence that says how they are written.

        Raises:
            TeacherError: if there is none, or its outputs are not those of the student.
        """
        record = TeacherRecord.load(folder, remedy)
        own = (self.label_manager.num_segmentation_heads, self.label_manager.has_regions)
        if (record.outputs, record.regions) != own:
            raise TeacherError(
                f"Teacher and student must segment the same; {folder} has {words(record.outputs, record.regions)}, "
                f"the dataset {words(*own)}. Teach again, with --overwrite."
            )
        return record

    def get_training_transforms(self, *arguments: Any, **options: Any) -> ComposeTransforms:
        return with_teacher_moved(super().get_training_transforms(*arguments, **options), self.channels_of_teacher)

    def get_validation_transforms(self, *arguments: Any, **options: Any) -> ComposeTransforms:
        return with_teacher_moved(super().get_validation_transforms(*arguments, **options), self.channels_of_teacher)

    @property
    def channels_of_teacher(self) -> int:
        """The number of outputs without the background."""
        labels = self.label_manager
        return outputs_on_disk(labels.num_segmentation_heads, regions=labels.has_regions)


def require_same_shapes(cases: TaughtCases) -> None:
    """Refuses probabilities of images that were preprocessed again since."""
    others = cases.of_other_shape()
    if others:
        raise TeacherError(
            f"A teacher's probabilities must have the shape of the preprocessed case; {len(others)} in "
            f"{cases.folder} have another, such as {others[0]}: it was preprocessed again since. "
            f"Teach again, with --overwrite."
        )


def words(outputs: int, regions: bool) -> str:
    """What a network segments, for a message."""
    return f"{outputs} {'regions' if regions else 'classes'}"
