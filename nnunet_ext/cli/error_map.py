"""`nnunet_ext error-map`: dataset, fit and apply."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.ensemble_flags import log_progress
from nnunet_ext.cli.model_flags import add_model_flags, chosen_folds, model_choice
from nnunet_ext.cli.patients_flag import add_patients_flag
from nnunet_ext.cli.progress_bar_flag import add_progress_bar_flag
from nnunet_ext.cli.splits_flag import add_splits_flag
from nnunet_ext.options import (
    DEVICES,
    EnsembleOptions,
    ErrorApplyOptions,
    ErrorDatasetOptions,
    ErrorFitOptions,
)

MEMBERS = "which checkpoints of each fold: final, best, samples, last-cycle or a file pattern, as in predict"


def error_map_flags(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="ACTION", help="dataset, then training, then fit, then apply"
    )
    for name, summary, add_flags in (
        ("dataset", "write a raw dataset of images, segmentations and their errors", dataset_flags),
        ("fit", "choose the threshold of wrong slices on the error model's cross-validation", fit_flags),
        ("apply", "write error maps, expected Dice and wrong slices of predictions", apply_flags),
    ):
        add_flags(actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."))


def dataset_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `error-map dataset`."""
    model = add_model_flags(parser)
    model.add_argument("-f", nargs="+", metavar="FOLD", help="folds (default: all folds with members)")
    model.add_argument(
        "--members",
        metavar="RULE",
        help=f"{MEMBERS}; they predict the held-out cases (default: take those in fold_X/validation, and "
        "predict with the final checkpoint if one is missing)",
    )
    new = parser.add_argument_group("new dataset")
    new.add_argument("--new-id", type=int, required=True, metavar="ID", help="its number, which must be free")
    new.add_argument("--name", metavar="NAME", help="its name after the number (default: the dataset's with Errors)")
    default = ErrorDatasetOptions.corruptions
    new.add_argument(
        "--corruptions",
        type=int,
        default=default,
        metavar="N",
        help="synthetic errors of the ground truth per case: dilation, erosion, shift, dropped slices, dropped "
        f"component, N kinds drawn at random (default: {default})",
    )
    new.add_argument(
        "--seed",
        type=int,
        default=ErrorDatasetOptions.seed,
        metavar="N",
        help=f"seed of the synthetic errors (default: {ErrorDatasetOptions.seed})",
    )
    add_splits_flag(new)
    add_patients_flag(new)
    add_machine_flags(parser)


def fit_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `error-map fit`."""
    model = add_model_flags(parser)
    model.add_argument("-f", nargs="+", metavar="FOLD", help="folds (default: all folds with members)")
    model.add_argument("--members", default="final", metavar="RULE", help=f"{MEMBERS} (default: final)")
    model.add_argument("--disable_tta", action="store_true", help="no mirroring")
    limits = parser.add_argument_group("limits")
    for flag, default, what in (
        ("--failure-dice", ErrorFitOptions.failure_dice, "a case or a slice with a lower Dice is a failure"),
        ("--false-alarms", ErrorFitOptions.false_alarms, "share of the right slices that may be flagged"),
    ):
        limits.add_argument(flag, type=float, default=default, metavar="SHARE", help=f"{what} (default: {default})")
    add_machine_flags(parser)


def apply_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `error-map apply`."""
    parser.add_argument("-m", required=True, metavar="FOLDER", help="folder of the error model")
    parser.add_argument("-i", required=True, metavar="FOLDER", help="images")
    parser.add_argument(
        "-p", required=True, metavar="FOLDER", help="their predictions by nnunet_ext or stock nnU-Net"
    )
    parser.add_argument(
        "-o",
        metavar="FOLDER",
        help="folder for maps and table; cases.csv is then left as it is (default: the folder of the predictions)",
    )
    parser.add_argument(
        "-f", nargs="+", metavar="FOLD", help="folds of the error model (default: all that were fitted)"
    )
    add_machine_flags(parser)


def add_machine_flags(parser: argparse.ArgumentParser) -> None:
    """Where networks run, and whether a bar is shown."""
    machine = parser.add_argument_group("machine")
    machine.add_argument("-device", choices=DEVICES, help="where the networks run (default: the first one available)")
    add_progress_bar_flag(machine)


def error_map(arguments: argparse.Namespace) -> int:
    log_progress()
    actions: dict[str, Callable[[argparse.Namespace], int]] = {"dataset": dataset, "fit": fit, "apply": apply}
    return actions[arguments.action](arguments)


def dataset(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.error_map_dataset import write_error_dataset

    found = write_error_dataset(
        ErrorDatasetOptions(
            model=model_choice(arguments),
            new_id=arguments.new_id,
            name=arguments.name,
            folds=chosen_folds(arguments.f),
            members=arguments.members,
            splits=Path(arguments.splits) if arguments.splits else None,
            patients=arguments.patients,
            corruptions=arguments.corruptions,
            seed=arguments.seed,
            device=arguments.device,
            allow_tqdm=not arguments.disable_progress_bar,
        )
    )
    print(
        f"{found.held_out} held-out cases of {found.folds} folds and {found.corrupted} corruptions: {found.folder}",
        f"splits: {found.splits}",
        f"next: nnUNetv2_plan_and_preprocess -d {arguments.new_id}",
        sep="\n",
    )
    return 0


def fit(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.error_map_fit import fit_error_model
    from nnunet_ext.error_maps.text import fit_lines

    found, file = fit_error_model(
        ErrorFitOptions(
            model=model_choice(arguments),
            ensemble=EnsembleOptions(
                folds=chosen_folds(arguments.f),
                members=arguments.members,
                device=arguments.device,
                tta="none" if arguments.disable_tta else "flips",
                allow_tqdm=not arguments.disable_progress_bar,
            ),
            failure_dice=arguments.failure_dice,
            false_alarms=arguments.false_alarms,
        )
    )
    print(*fit_lines(found), f"Saved to {file}", sep="\n")
    return 0


def apply(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.error_map_apply import judge_predictions
    from nnunet_ext.error_maps.text import judgement_lines

    outcome = judge_predictions(
        ErrorApplyOptions(
            model=Path(arguments.m),
            images=Path(arguments.i),
            predictions=Path(arguments.p),
            output=Path(arguments.o) if arguments.o else None,
            folds=chosen_folds(arguments.f),
            device=arguments.device,
            allow_tqdm=not arguments.disable_progress_bar,
        )
    )
    print(*judgement_lines(outcome.judgements))
    print(f"  table: {outcome.folder / 'error_map.csv'}; {outcome.updated} rows of cases.csv updated")
    for name, problem in outcome.problems.items():
        print(f"  {name}: {problem}", file=sys.stderr)
    return 1 if outcome.problems else 0


COMMAND = Command(
    "error-map",
    "train and apply a network that predicts where a segmentation is wrong",
    error_map_flags,
    error_map,
    """example:
  $ nnunet_ext error-map dataset -d 27 -c 2d --new-id 127 --patients '(patient[0-9]+)_'
  ...
  $ nnUNetv2_plan_and_preprocess -d 127 -c 2d
  $ nnUNetv2_train 127 2d 0        # and the other folds
  $ nnunet_ext error-map fit -d 127 -c 2d
  ...
  Saved to nnUNet_results/Dataset127_ACDCErrors/nnUNetTrainer__nnUNetPlans__2d/error_map.json
  $ nnunet_ext error-map apply -m nnUNet_results/Dataset127_ACDCErrors/nnUNetTrainer__nnUNetPlans__2d \\
      -i images -p results""",
    status_1="apply: some cases have no prediction or could not be judged; the others are",
)
