"""`nnunet_ext models`."""

from __future__ import annotations

import argparse

from nnunet_ext.cli.command import Command


def models_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", required=True, metavar="DATASET", help="dataset name or id, found in nnUNet_results")


def models(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.models import model_lines, models_of_dataset

    folder, found = models_of_dataset(arguments.d)
    if not found:
        print(f"No trained model in {folder}.")
        return 1
    print(*model_lines(found), sep="\n")
    return 0


COMMAND = Command(
    "models",
    "list the trained models of a dataset, with folds, samples and calibration",
    models_flags,
    models,
    """example:
  $ nnunet_ext models -d 27
  model                                                    folds  unfinished  samples  calibrated
  -tr nnUNetTrainerCyclical -p nnUNetPlans -c 2d           0 1    2           480      yes
  -tr nnUNetTrainer -p nnUNetPlans -c 3d_fullres           0      -           -        -""",
    status_1="no model of the dataset is trained",
)
