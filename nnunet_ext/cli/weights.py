"""`nnunet_ext weights`."""

from __future__ import annotations

import argparse
from pathlib import Path

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
from nnunet_ext.options import WeightsOptions

# flags of predict that contradict a fit of weights
FIXED = {"m": None, "average": "probabilities", "weights": None, "early_exit": None}


def weights_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="folders of trained models, as -m of predict")
    parser.add_argument("-o", required=True, metavar="FILE", help="JSON file for the weights")
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds (default: all folds that every model has)")
    ensemble = parser.add_argument_group("ensemble")
    add_member_flags(ensemble)
    add_pass_flags(ensemble)
    data = parser.add_argument_group("cases")
    add_splits_flag(data)
    add_patients_flag(data)
    fit = parser.add_argument_group("what to fit")
    fit.add_argument(
        "--pull",
        type=float,
        default=0.01,
        metavar="STRENGTH",
        help="strength of the pull to equal weights; 0 is none (default: 0.01)",
    )
    fit.add_argument(
        "--best",
        type=int,
        metavar="N",
        help="do not learn the weights: for each class or region, the N models with the best Dice share it evenly",
    )
    add_machine_flags(parser)
    parser.set_defaults(**FIXED)


def weights(arguments: argparse.Namespace) -> int:
    from nnunet_ext.calibration.weights_text import weights_lines
    from nnunet_ext.commands.weights import fit_weights

    log_progress()
    options = weights_options(arguments)
    say_where(options.ensemble)
    print(*weights_lines(fit_weights(options)), "", f"Saved to {options.file}", sep="\n")
    return 0


def weights_options(arguments: argparse.Namespace) -> WeightsOptions:
    """The flags as options.

    Raises:
        ValueError: if flags contradict each other, or a value is out of range.
    """
    return WeightsOptions(
        folders=tuple(Path(folder) for folder in arguments.folders),
        file=Path(arguments.o),
        ensemble=ensemble_options(arguments),
        pull=arguments.pull,
        best=arguments.best,
        splits=Path(arguments.splits) if arguments.splits else None,
        patients=arguments.patients,
        previous_stage=Path(arguments.prev_stage_predictions) if arguments.prev_stage_predictions else None,
    )


COMMAND = Command(
    "weights",
    "fit a weight for each model and class or region on the cross-validation",
    weights_flags,
    weights,
    """example:
  $ nnunet_ext weights nnUNetTrainer__nnUNetPlans__2d nnUNetTrainer__nnUNetPlans__3d_fullres -o weights.json
  ...
  Saved to weights.json
  $ nnunet_ext predict -i images -o results -m nnUNetTrainer__nnUNetPlans__2d \\
      -m nnUNetTrainer__nnUNetPlans__3d_fullres --weights weights.json""",
)
