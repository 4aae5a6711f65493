"""`nnunet_ext check`."""

from __future__ import annotations

import argparse

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.model_flags import add_model_flags


def check_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("FOLDER", help="images, named CASE_0000<ending>")
    model = add_model_flags(parser)
    model.description = (
        "The model needs no checkpoints. If there is none yet, -d alone takes dataset.json from nnUNet_raw or "
        "nnUNet_preprocessed."
    )
    parser.add_argument(
        "-prev_stage_predictions", metavar="FOLDER", help="segmentations of a cascade's first stage, checked as well"
    )
    parser.add_argument("--disable_progress_bar", action="store_true", help="for logs of batch jobs")


def check(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.check import check_folder

    report = check_folder(arguments)
    print(*report.lines, sep="\n")
    return 1 if report.bad else 0


COMMAND = Command(
    "check",
    "look for damaged and inconsistent images, as predict does before it predicts",
    check_flags,
    check,
    """example:
  $ nnunet_ext check images -d 123
  case       file                   found, and what to do
  heart_007  heart_007_0000.nii.gz  a compressed stream that is cut short after 1048576 bytes; expected a stream ...
                                    -> Copy or export the file again.

  9 good, 1 bad of 10 cases: images""",
)
