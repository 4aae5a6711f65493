"""`nnunet_ext teach`: writes what members say of the cases that they have never seen, for a student's training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunet_ext.commands.held_out_folds import (
    PROBABILITIES,
    CaseNotPredictedError,
    folds_of_all,
    folds_text,
    held_out_by_fold,
    member_hashes,
)
from nnunet_ext.commands.student import Student
from nnunet_ext.commands.training_data import TrainingData
from nnunet_ext.inference.engine import EnsembleEngine, device_of
from nnunet_ext.inference.run import progress_logger
from nnunet_ext.machine.devices import prepare_process_for
from nnunet_ext.models.description import model_description
from nnunet_ext.options import TeachOptions
from nnunet_ext.prediction_folder.agreement import require_agreement
from nnunet_ext.prediction_folder.case_files import CasePrediction
from nnunet_ext.teaching.case_file import case_file, teacher_folder, write_packed
from nnunet_ext.teaching.packing import bytes_per_voxel, packed
from nnunet_ext.teaching.record import FILE_NAME, TaughtFold, TeacherError, TeacherRecord


@dataclass(frozen=True)
class Lesson:
    """What will be written, and what is there already.

    Attributes:
        options: of the command.
        student: whose cases they are.
        data: the dataset of the teachers.
        folder: of the probabilities.
        outputs: of the networks, with the background.
        cases: fold to the cases that its members teach.
        untaught: preprocessed cases that no fold holds out.
        size_bytes: of all files before compression.
    """

    options: TeachOptions
    student: Student
    data: TrainingData
    folder: Path
    outputs: int
    cases: Mapping[str, Sequence[str]]
    untaught: Sequence[str]
    size_bytes: int

    @property
    def complete(self) -> int:
        """How many of the cases have a file that is kept."""
        if not self.continues:
            return 0
        return sum(case_file(self.folder, case).is_file() for cases in self.cases.values() for case in cases)

    @property
    def continues(self) -> bool:
        """Whether what is in the folder is kept; without a record nobody knows who taught it."""
        return not self.options.overwrite and (self.folder / FILE_NAME).is_file()

    @property
    def free_bytes(self) -> int:
        """What is free on the disk."""
        return shutil.disk_usage(self.student.folder).free

    def new_record(self) -> TeacherRecord:
        """The record without folds and settings."""
        return TeacherRecord(self.outputs, self.data.description.regions, self.options.top, {})


def prepare_lesson(options: TeachOptions) -> Lesson:
    """Checks everything that can be checked before the first case is predicted.

    Raises:
        TrainedOnError: if members would teach a case, or a patient, that they were trained on.
        TeacherError: if a teacher does not belong to the student's dataset.
        FileNotFoundError: if the student's cases are not preprocessed.
        ValueError: if the teachers have no fold in common, or the splits name unknown cases.
    """
    if options.previous_stage is not None:
        require_agreement(options.previous_stage)
    student = Student.open(options.dataset, options.plans, options.configuration)
    for teacher in options.teachers:
        require_same_dataset(teacher, student)
    data = TrainingData.open(options.teachers[0], options.splits)
    folds = [str(fold) for fold in options.ensemble.fold_list or common_folds(options)]
    cases: dict[str, list[str]] = {}
    for fold, names in held_out_by_fold(folds, options.teachers, data.splits, options.patients).items():
        cases[str(fold)] = [name for name in names if not any(name in earlier for earlier in cases.values())]
    known, wanted = set(student.cases.identifiers), [case for names in cases.values() for case in names]
    unknown = sorted(set(wanted) - known)
    if unknown:
        raise ValueError(
            f"Every case of the splits must be preprocessed; {student.folder} lacks {len(unknown)}, such as "
            f"{unknown[0]}. Preprocess the dataset again."
        )
    outputs = len(data.scheme().outputs())
    voxel_bytes = bytes_per_voxel(outputs, options.top, regions=data.description.regions)
    return Lesson(
        options,
        student,
        data,
        teacher_folder(student.folder),
        outputs,
        cases,
        untaught=sorted(known - set(wanted)),
        size_bytes=sum(int(np.prod(student.shape_of(case))) for case in wanted) * voxel_bytes,
    )


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


def common_folds(options: TeachOptions) -> list[str]:
    """The numbered folds that have members in every teacher.

    Raises:
        ValueError: if there is none.
    """
    teachers, members = options.teachers, options.ensemble.members
    common = [fold for fold in folds_of_all(teachers, members) if fold != "all"]
    if not common:
        raise ValueError(
            f"Cases are taught by folds that held them out, and all teachers need the same ones; found "
            f"{folds_text(teachers, members)}. Train numbered folds."
        )
    return common


def teach(lesson: Lesson) -> TeacherRecord:
    """Predicts each fold's held-out cases with its members and writes their probabilities; complete files are kept.

    Raises:
        TeacherError: if the folder holds the probabilities of another teacher.
        CaseNotPredictedError: if a case could not be predicted.
    """
    options, folder = lesson.options, lesson.folder
    prepare_process_for(device_of(options.ensemble))
    if lesson.continues:
        record = TeacherRecord.load(folder)
    else:
        record = lesson.new_record()
        empty(folder)
    failed: dict[str, str] = {}
    for fold, cases in lesson.cases.items():
        engine = EnsembleEngine.from_model_folders(options.teachers, options.ensemble, folds=[int(fold)])
        record = with_settings(record, lesson, engine)
        own = [case for case in cases if record.fold_of(case) in (None, fold)]
        trained_on = lesson.data.splits[int(fold)]["train"]
        record = record.with_fold(fold, TaughtFold(member_hashes(engine.models), own, sorted(trained_on)))
        record.save(folder)  # before the files of its cases, so that none is without a record
        remaining = [case for case in own if not case_file(folder, case).is_file()]
        progress_logger.info("fold %s: %d held-out cases, %d of them to do", fold, len(own), len(remaining))
        outcome = engine.predict_cases(
            [lesson.data.case(case, options.previous_stage) for case in remaining],
            ProbabilityWriter(lesson),
            PROBABILITIES,
        )
        failed |= outcome.failed
    if failed:
        raise CaseNotPredictedError(
            f"{len(failed)} cases have no probabilities; the others are complete: "
            + "; ".join(f"{name}: {message}" for name, message in failed.items())
        )
    return record


def empty(folder: Path) -> None:
    """Makes a folder without files. The record goes first, so that the run after a kill empties it as well."""
    (folder / FILE_NAME).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()


def with_settings(record: TeacherRecord, lesson: Lesson, engine: EnsembleEngine) -> TeacherRecord:
    """The record with the settings of the ensemble.

    Raises:
        TeacherError: if it has others.
    """
    new = lesson.new_record()
    settings = json.loads(json.dumps(engine.settings))  # as they are read again
    wanted = replace(new, settings=settings, folds=record.folds)
    if record not in (wanted, new):
        raise TeacherError(
            f"{lesson.folder} holds the probabilities of another teacher, or of one with other settings: "
            f"{record.settings}, top {record.top}; asked for is {wanted.settings}, top {wanted.top}. Use the same "
            f"flags, or start again with --overwrite."
        )
    return wanted


@dataclass(frozen=True)
class ProbabilityWriter:
    """Takes predicted cases and writes their probabilities on the student's grid."""

    lesson: Lesson

    def write(self, prediction: CasePrediction) -> None:
        """Writes one case."""
        lesson, case = self.lesson, prediction.case
        if prediction.probabilities is None:
            raise ValueError(f"A student needs the probabilities of every case; {case} has none.")
        values = lesson.student.on_grid(prediction.probabilities, case)
        array = packed(values, lesson.options.top, regions=lesson.data.description.regions)
        write_packed(array, case_file(lesson.folder, case), lesson.student.configuration.patch_size)
