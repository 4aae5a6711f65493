"""What `nnunet_ext teach` is about to write: whose cases, taught by which members, and how large it becomes."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_ext.commands.student import Student
from nnunet_ext.commands.training_data import TrainingData
from nnunet_ext.models.description import model_description
from nnunet_ext.options import TeachOptions
from nnunet_ext.prediction_folder.agreement import require_agreement
from nnunet_ext.prediction_folder.cases import Case
from nnunet_ext.teaching.case_file import case_file, teacher_folder
from nnunet_ext.teaching.packing import bytes_per_voxel
from nnunet_ext.teaching.record import FILE_NAME, TeacherError, TeacherRecord


@dataclass(frozen=True)
class TaughtGroup:
    """Cases with the same teacher.

    Attributes:
        key: in the record, a fold's number or `TOGETHER`.
        folds: whose members teach.
        cases: that they teach.
        trained_on: names of the cases that they were trained on.
    """

    key: str
    folds: Sequence[int | str]
    cases: Sequence[Case]
    trained_on: Iterable[str]


@dataclass(frozen=True)
class Lesson:
    """What will be written, and what is there already.

    Attributes:
        options: of the command.
        student: whose cases they are.
        data: the dataset of the teachers.
        groups: the cases by teacher.
        untaught: names of cases that nobody teaches.
    """

    options: TeachOptions
    student: Student
    data: TrainingData
    groups: Sequence[TaughtGroup]
    untaught: Sequence[str]

    @property
    def folder(self) -> Path:
        """The folder of the probabilities."""
        return teacher_folder(self.student.folder)

    @property
    def lock_folder(self) -> Path:
        """Holds the lock: not in the folder of the probabilities, which may be removed, nor among nnU-Net's cases."""
        return self.folder.with_name(f".{self.folder.name}_lock")

    @property
    def outputs(self) -> int:
        """The number of outputs of the networks, with the background."""
        return len(self.data.scheme().outputs())

    @property
    def names(self) -> list[str]:
        """The names of all cases that are taught."""
        return [case.name for group in self.groups for case in group.cases]

    @property
    def complete(self) -> int:
        """How many of the cases have a file that is kept."""
        return sum(map(self.is_taught, self.names)) if self.continues else 0

    def is_taught(self, case: str) -> bool:
        """Whether a case has its file, and was not preprocessed again since."""
        taught, preprocessed = case_file(self.folder, case), self.student.folder / f"{case}.pkl"
        return taught.is_file() and preprocessed.stat().st_mtime <= taught.stat().st_mtime

    @property
    def continues(self) -> bool:
        """Whether what is in the folder is kept; without a record nobody knows who taught it."""
        return not self.options.overwrite and (self.folder / FILE_NAME).is_file()

    @property
    def size_bytes(self) -> int:
        """Size of all files before compression."""
        voxels = sum(int(np.prod(self.student.shape_of(name))) for name in self.names)
        return voxels * bytes_per_voxel(self.outputs, self.options.top, regions=self.data.description.regions)

    @property
    def free_bytes(self) -> int:
        """What is free on the disk."""
        return shutil.disk_usage(self.student.folder).free

    def new_record(self) -> TeacherRecord:
        """The record without folds and settings."""
        return TeacherRecord(self.outputs, self.data.description.regions, self.options.top, {})


def open_student(options: TeachOptions) -> Student:
    """The student with its labelled cases, after a check that every teacher belongs to it.

    Raises:
        TeacherError: if a teacher does not belong to the student's dataset.
        FileNotFoundError: if the student's cases are not preprocessed.
        ValueError: if the folder of a cascade's first stage contradicts itself.
    """
    if options.previous_stage is not None:
        require_agreement(options.previous_stage)
    student = Student.open(options.dataset, options.plans, options.configuration)
    for teacher in options.teachers:
        require_same_dataset(teacher, student)
    return student


def require_same_dataset(teacher: Path, student: Student) -> None:
    """Refuses a teacher of another dataset, or of other labels.

    Raises:
        TeacherError: if so.
    """
    plans, dataset_json = model_description(teacher)
    own = (student.name, student.dataset_json["labels"])
    found = (plans["dataset_name"], dataset_json["labels"])
    if found != own:
        raise TeacherError(
            f"Teacher and student must segment the same dataset; {teacher.name} was trained on {found[0]} with the "
            f"labels {', '.join(found[1])}, the student's is {own[0]} with {', '.join(own[1])}. Give another -m."
        )
