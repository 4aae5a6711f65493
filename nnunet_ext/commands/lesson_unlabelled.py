"""The lesson of `nnunet_ext teach --unlabelled`: cases without labels, taught by members of all folds together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from nnunet_ext.calibration.held_out_cases import TrainedOnError, cases_in, drawn_cases, held_out_cases
from nnunet_ext.commands.held_out_folds import folds_of_all, folds_text, warn_of_unknown_patients
from nnunet_ext.commands.lesson import Lesson, TaughtGroup, open_student
from nnunet_ext.commands.training_cases import raw_folder
from nnunet_ext.commands.training_data import TrainingData
from nnunet_ext.options import TeachOptions
from nnunet_ext.prediction_folder.cases import Case
from nnunet_ext.splits import Split, shared_patients
from nnunet_ext.teaching.record import TOGETHER
from nnunet_ext.trainers.fewer_labels.unlabelled_cases import IMAGES
from nnunet_ext.unlabelled.scans import find_scans

REMOVE = f"Remove what is not new from {IMAGES}, and run nnunet_ext preprocess-unlabelled --overwrite."


def prepare_unlabelled_lesson(options: TeachOptions) -> Lesson:
    """Checks everything that can be checked before the first case is predicted.

    Raises:
        TrainedOnError: if a case is also a labelled one, or of a patient that members were trained on, or the splits
            are not those of the training.
        TeacherError: if a teacher does not belong to the student's dataset.
        FileNotFoundError: if the cases are not preprocessed, or the image of one is missing.
        ValueError: if the teachers have no fold in common.
    """
    labelled = open_student(options)
    student = labelled.without_labels(options.plans, options.configuration)
    data = TrainingData.open(options.teachers[0], options.splits)
    folds = options.ensemble.fold_list or folds_of_every_teacher(options)
    trained = trained_on(folds, options.teachers, data)
    names = list(student.cases.identifiers)
    refuse_labelled(names, {*labelled.cases.identifiers, *data.files, *trained, *cases_of(data.splits)})
    refuse_validated(names, options.teachers)
    refuse_patients(names, trained, options.patients)
    if options.patients is None:
        warn_of_unknown_patients([*data.splits, {"train": [], "val": names}])
    images = images_of(labelled.name, data.ending, options.previous_stage)
    missing = [name for name in names if name not in images]
    if missing:
        raise FileNotFoundError(
            f"Every preprocessed case without labels needs its image in {IMAGES} of the raw dataset; {len(missing)} "
            f"have none, such as {missing[0]}. Put it back, or run nnunet_ext preprocess-unlabelled --overwrite."
        )
    group = TaughtGroup(TOGETHER, folds, [images[name] for name in names], trained)
    return Lesson(options, student, data, [group], untaught=sorted(set(images) - set(names)))


def folds_of_every_teacher(options: TeachOptions) -> list[int | str]:
    """The numbered folds that have members in every teacher, or `fold_all` if there is no other.

    Raises:
        ValueError: if they have none in common.
    """
    common = folds_of_all(options.teachers, options.ensemble.members)
    if not common:
        raise ValueError(
            f"All teachers need the same folds; found {folds_text(options.teachers, options.ensemble.members)}. "
            f"Train the others, or leave out an -m."
        )
    return [int(fold) for fold in common if fold != "all"] or ["all"]


def trained_on(folds: Sequence[int | str], teachers: Sequence[Path], data: TrainingData) -> set[str]:
    """The cases that members of these folds were trained on, by name.

    Raises:
        TrainedOnError, ValueError: if the splits are not those of the training, see `held_out_cases`.
    """
    found: set[str] = set()
    for fold in folds:
        folders = [teacher / f"fold_{fold}" for teacher in teachers]
        if fold == "all":
            found |= set(data.files)
        else:
            held_out_cases(fold, data.splits, folders)  # for its checks of the splits
            found |= set(data.splits[int(fold)]["train"])
        found = found.union(*map(drawn_cases, folders))
    return found


def cases_of(splits: Sequence[Split]) -> set[str]:
    """All cases that the splits name."""
    return {case for split in splits for side in ("train", "val") for case in split[side]}


def refuse_labelled(names: Sequence[str], labelled: Collection[str]) -> None:
    """Raises TrainedOnError if a case without labels has the name of a labelled one."""
    both = [name for name in names if name in labelled]
    if both:
        raise TrainedOnError(
            f"A teacher must never have seen a case that it teaches; {len(both)} of the cases without labels are "
            f"also labelled, such as {both[0]}. {REMOVE}"
        )


def refuse_validated(names: Sequence[str], teachers: Sequence[Path]) -> None:
    """Raises TrainedOnError if a fold of a teacher validated a case: it had a label, and other folds train on it."""
    for teacher in teachers:
        for folder in sorted(teacher.glob("fold_*/validation")):
            validated = sorted(cases_in(folder, names))
            if validated:
                raise TrainedOnError(
                    f"A teacher must never have seen a case that it teaches; {folder} holds {validated[0]}, which is "
                    f"now among the cases without labels: it was a labelled case in the training. {REMOVE}"
                )


def refuse_patients(names: Sequence[str], trained: Collection[str], patients: str | None) -> None:
    """Raises TrainedOnError if a case without labels is of a patient that members were trained on.

    Nothing is refused where the pattern of the patients is not known.
    """
    shared = shared_patients(sorted(trained), names, patients) if patients is not None else []
    if shared:
        count = sum(len(patient.held_out) for patient in shared)
        raise TrainedOnError(
            f"A teacher must never have seen a patient that it teaches; {count} of {len(names)} cases without labels "
            f"are of patients with training cases, such as {shared[0].example}. {REMOVE}"
        )


def images_of(dataset: str, ending: str, previous_stage: Path | None) -> Mapping[str, Case]:
    """The cases of `imagesUn`, by name.

    Args:
        dataset: its full name.
        ending: of image files.
        previous_stage: folder of their segmentations of a cascade's first stage, or None.

    Raises:
        FileNotFoundError: if there is none.
    """
    folder = raw_folder(dataset) / IMAGES
    if not folder.is_dir():
        raise FileNotFoundError(f"Images without labels are read from {folder}; it does not exist.")
    return {
        scan.name: Case(scan.name, scan.files, previous_stage / f"{scan.name}{ending}" if previous_stage else None)
        for scan in find_scans(folder, ending)
    }
