"""The flags that name a trained model, which several subcommands have."""

from __future__ import annotations

import argparse


def add_model_flags(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds the flags that name a trained model."""
    model = parser.add_argument_group("model: either -m, or -d and -c")
    model.add_argument(
        "-m",
        action="append",
        metavar="FOLDER",
        help="a trained model, TRAINER__PLANS__CONFIGURATION; predict makes an ensemble of several",
    )
    model.add_argument("-d", metavar="DATASET", help="dataset name or id, found in nnUNet_results")
    model.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans (default: nnUNetPlans)")
    model.add_argument("-tr", default="nnUNetTrainer", metavar="TRAINER", help="trainer (default: nnUNetTrainer)")
    model.add_argument("-c", metavar="CONFIGURATION", help="2d, 3d_fullres, ...")
    return model
