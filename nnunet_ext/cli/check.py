"""`nnunet_ext check`."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.model_flags import add_model_flags, model_choice
from nnunet_ext.cli.progress_bar_flag import add_progress_bar_flag
from nnunet_ext.options import CheckOptions


def check_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("FOLDER", help="folder of the images, named CASE_0000<ending>, one file per channel")
    model = add_model_flags(parser)
    model.description = (
        "No checkpoints are needed. Before any training, -d alone reads dataset.json from nnUNet_raw or "
        "nnUNet_preprocessed."
    )
    parser.add_argument(
        "-prev_stage_predictions", metavar="FOLDER", help="segmentations of a cascade's first stage, checked as well"
    )
    add_progress_bar_flag(parser)


def check(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.check import check_folder

    by_dataset = arguments.d is not None and not arguments.m and arguments.c is None  # no model yet
    options = CheckOptions(
        images=Path(arguments.FOLDER),
        model=None if by_dataset else model_choice(arguments),
        dataset=arguments.d if by_dataset else None,
        previous_stage=Path(arguments.prev_stage_predictions) if arguments.prev_stage_predictions else None,
        allow_tqdm=not arguments.disable_progress_bar,
    )
    outcome = check_folder(options)
    print(*outcome.lines, sep="\n")
    return 1 if outcome.bad else 0


COMMAND = Command(
    "check",
    "check images for damage and inconsistencies, as predict does before it runs",
    check_flags,
    check,
    """example:
  $ nnunet_ext check images -d 123
  case       file                   found, and what to do
  heart_007  heart_007_0000.nii.gz  a compressed stream that is truncated after 1048576 bytes; expected a stream ...
                                    -> Copy or export the file again.

  9 good, 1 bad of 10 cases: images""",
    status_1="a case is bad",
)
