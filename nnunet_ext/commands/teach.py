"""`nnunet_ext teach`: writes what members say of the cases that they have never seen, for a student's training."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_ext.commands.held_out_folds import (
    PROBABILITIES,
    CaseNotPredictedError,
    folds_of_all,
    folds_text,
    held_out_by_fold,
    member_hashes,
)
from nnunet_ext.commands.lesson import Lesson, TaughtGroup, open_student
from nnunet_ext.commands.lesson_unlabelled import prepare_unlabelled_lesson
from nnunet_ext.commands.training_data import TrainingData
from nnunet_ext.files.atomic import as_read_back
from nnunet_ext.inference.engine import EnsembleEngine, device_of
from nnunet_ext.inference.run import progress_logger
from nnunet_ext.machine.devices import prepare_process_for
from nnunet_ext.options import TeachOptions
from nnunet_ext.options.recorded_settings import differences
from nnunet_ext.prediction_folder.case_files import CasePrediction
from nnunet_ext.prediction_folder.output_lock import OutputLock
from nnunet_ext.teaching.case_file import case_file, write_packed
from nnunet_ext.teaching.packing import packed
from nnunet_ext.teaching.record import FILE_NAME, TOGETHER, TaughtFold, TeacherError, TeacherRecord


def prepare_lesson(options: TeachOptions) -> Lesson:
    """Checks everything that can be checked before the first case is predicted.

    Raises:
        TrainedOnError: if members would teach a case, or a patient, that they were trained on.
        TeacherError: if a teacher does not belong to the student's dataset.
        FileNotFoundError: if the student's cases are not preprocessed.
        ValueError: if the teachers have no fold in common, or the splits name unknown cases.
    """
    if options.unlabelled:
        return prepare_unlabelled_lesson(options)
    student = open_student(options)
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
    groups = [
        TaughtGroup(
            key=fold,
            folds=[int(fold)],
            cases=[data.case(name, options.previous_stage) for name in names],
            trained_on=data.splits[int(fold)]["train"],
        )
        for fold, names in cases.items()
    ]
    return Lesson(options, student, data, groups, untaught=sorted(known - set(wanted)))


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
    """Predicts each group's cases with its members and writes their probabilities; complete files are kept.

    Raises:
        TeacherError: if the folder holds the probabilities of another teacher.
        CaseNotPredictedError: if a case could not be predicted.
        OutputInUseError: if another run teaches the same student.
    """
    lock = OutputLock(lesson.lock_folder)
    try:
        return write_lesson(lesson)
    finally:
        lock.release()
        with suppress(OSError):  # another run has it already
            lesson.lock_folder.rmdir()


def write_lesson(lesson: Lesson) -> TeacherRecord:
    """Writes into the folder of the lesson, which no other run writes to; see `teach`."""
    options, folder = lesson.options, lesson.folder
    prepare_process_for(device_of(options.ensemble))
    if lesson.continues:
        record = TeacherRecord.load(folder)
    else:
        record = lesson.new_record()
        empty(folder)
    failed: dict[str, str] = {}
    for group in lesson.groups:
        engine = EnsembleEngine.from_model_folders(options.teachers, options.ensemble, folds=list(group.folds))
        record = with_settings(record, lesson, engine)
        own = [case for case in group.cases if record.fold_of(case.name) in (None, group.key)]
        names = [case.name for case in own]
        fold = TaughtFold(member_hashes(engine.models), names, sorted(group.trained_on))
        record = record.with_fold(group.key, fold)
        record.save(folder)  # before the files of its cases, so that none is without a record
        remaining = [case for case in own if not lesson.is_taught(case.name)]
        progress_logger.info("%s: %d, %d of them to do", described(group), len(own), len(remaining))
        failed |= engine.predict_cases(remaining, ProbabilityWriter(lesson), PROBABILITIES).failed
    if failed:
        raise CaseNotPredictedError(
            f"{len(failed)} cases have no probabilities; the others are complete: "
            + "; ".join(f"{name}: {message}" for name, message in failed.items())
        )
    return record


def described(group: TaughtGroup) -> str:
    """The cases of a group, for the log."""
    return "cases without labels" if group.key == TOGETHER else f"held-out cases of fold {group.key}"


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
    wanted = replace(new, settings=as_read_back(engine.settings), folds=record.folds)
    if record not in (wanted, new):
        found, asked = ({**one.settings, "top": one.top} for one in (record, wanted))
        named = [f"{name} is {recorded}, asked for is {now}" for name, recorded, now in differences(found, asked)]
        raise TeacherError(
            f"{lesson.folder} holds the probabilities of another teacher, or of one with other settings: "
            f"{'; '.join(named) or 'other outputs'}. Use the same flags, or start again with --overwrite."
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
