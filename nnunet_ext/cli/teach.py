"""`nnunet_ext teach`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.ensemble_flags import (
    add_machine_flags,
    add_member_flags,
    add_pass_flags,
    ensemble_options,
    log_progress,
    say_where,
)
from nnunet_ext.cli.patients_flag import add_patients_flag
from nnunet_ext.cli.splits_flag import add_splits_flag
from nnunet_ext.cli.submit_flags import add_submit_flags, chosen_job, submit_this
from nnunet_ext.options import TeachOptions

if TYPE_CHECKING:
    from nnunet_ext.commands.lesson import Lesson

# flags of predict that do not apply to one fold's members
FIXED = {"average": "probabilities", "weights": None, "early_exit": None}


def teach_flags(parser: argparse.ArgumentParser) -> None:
    student = parser.add_argument_group("student")
    student.add_argument("-d", required=True, metavar="DATASET", help="dataset name or id")
    student.add_argument("-c", required=True, metavar="CONFIGURATION", help="configuration that the student trains")
    student.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="its plans (default: nnUNetPlans)")
    teacher = parser.add_argument_group("teacher")
    teacher.add_argument(
        "-m",
        required=True,
        action="append",
        metavar="FOLDER",
        help="folder of a model that teaches, trained on the same dataset; repeatable, all of them teach together",
    )
    teacher.add_argument("-f", nargs="+", metavar="FOLD", help="folds (default: all numbered folds of every teacher)")
    add_member_flags(teacher)
    add_pass_flags(teacher)
    data = parser.add_argument_group("cases")
    data.add_argument(
        "--unlabelled",
        action="store_true",
        help="teach the images without labels instead, which preprocess-unlabelled has preprocessed, by the members "
        "of all folds together; for trainers with Unlabelled in their name",
    )
    add_splits_flag(data)
    add_patients_flag(data)
    files = parser.add_argument_group("files")
    files.add_argument(
        "--top",
        type=int,
        default=TeachOptions.top,
        metavar="N",
        help="number of classes kept of each voxel if the dataset has more than 2 N foreground classes "
        f"(default: {TeachOptions.top}); with fewer, and of regions, all are kept",
    )
    files.add_argument("--overwrite", action="store_true", help="remove the probabilities of another teacher first")
    add_machine_flags(parser)
    add_submit_flags(parser)
    parser.set_defaults(**FIXED)


def teach(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands import teach as command

    log_progress()
    options = teach_options(arguments)
    if (job := chosen_job(arguments)) is not None:
        return submit_this(arguments, job)
    say_where(options.ensemble)
    lesson = command.prepare_lesson(options)
    print(*lines_before(lesson), sep="\n", flush=True)
    command.teach(lesson)
    print(*lines_after(lesson), sep="\n")
    return 0


def teach_options(arguments: argparse.Namespace) -> TeachOptions:
    """The flags as options.

    Raises:
        ValueError: if flags contradict each other, or a value is out of range.
    """
    return TeachOptions(
        dataset=arguments.d,
        configuration=arguments.c,
        plans=arguments.p,
        teachers=tuple(Path(folder) for folder in arguments.m),
        ensemble=ensemble_options(arguments),
        top=arguments.top,
        splits=Path(arguments.splits) if arguments.splits else None,
        patients=arguments.patients,
        previous_stage=Path(arguments.prev_stage_predictions) if arguments.prev_stage_predictions else None,
        overwrite=arguments.overwrite,
        unlabelled=arguments.unlabelled,
    )


def lines_before(lesson: Lesson) -> list[str]:
    """What will be written, and how large it can become."""
    folds = " ".join(str(fold) for group in lesson.groups for fold in group.folds)
    how = (
        " without labels, all taught by these folds"
        if lesson.options.unlabelled
        else ", each taught by the fold that held it out"
    )
    return [
        f"{len(lesson.names)} cases{how}: {folds}; {lesson.complete} are complete",
        f"at most {lesson.size_bytes / 1e9:.3g} GB before compression, {lesson.free_bytes / 1e9:.3g} GB are free: "
        f"{lesson.folder}",
    ]


def lines_after(lesson: Lesson) -> list[str]:
    """What is missing, and how to train the student."""
    options = lesson.options
    trainer = "nnUNetTrainerDistill_Unlabelled" if options.unlabelled else "nnUNetTrainerDistill"
    lines, count = [], len(lesson.untaught)
    if count and options.unlabelled:
        lines.append(
            f"{count} images without labels are not preprocessed, such as {lesson.untaught[0]}. Run nnunet_ext "
            f"preprocess-unlabelled, and this again."
        )
    elif count:
        lines.append(
            f"{count} preprocessed cases have no teacher, such as {lesson.untaught[0]}: these folds did not hold "
            f"them out. A student cannot train on them; train the other folds, and run this again."
        )
    command = f"nnunet_ext train {options.dataset} {options.configuration} 0 -tr {trainer}"
    return [*lines, f"Train the student: {command} -p {options.plans}"]


COMMAND = Command(
    "teach",
    "write a teacher's probabilities beside the preprocessed cases, for students to learn from",
    teach_flags,
    teach,
    """example:
  $ nnunet_ext teach -d 27 -c 3d_fullres -m nnUNet_results/Dataset027_ACDC/nnUNetTrainer__nnUNetPlans__3d_fullres
  200 cases, each taught by the fold that held it out: 0 1 2 3 4; 0 are complete
  at most 1.1 GB before compression, 300 GB are free: nnUNet_preprocessed/.../nnUNetPlans_3d_fullres_teacher
  ...
  Train the student: nnunet_ext train 27 3d_fullres 0 -tr nnUNetTrainerDistill -p nnUNetPlans""",
    how_to_go_on=lambda _: "Run it again: complete cases are kept.",
)
