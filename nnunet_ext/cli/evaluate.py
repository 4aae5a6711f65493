"""`nnunet_ext evaluate`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.patients_flag import add_patients_flag
from nnunet_ext.cli.progress_bar_flag import add_progress_bar_flag
from nnunet_ext.options import (
    ABSENT_RULES,
    END_STACKS,
    END_VARIANTS,
    DatasetFiles,
    EvaluationOptions,
    JudgeOptions,
    MetricOptions,
)


def add_dataset_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of all commands that compare predictions with the ground truth."""
    data = parser.add_argument_group("dataset")
    data.add_argument(
        "-djfile", metavar="FILE", type=Path, help="dataset.json (default: the one in PRED, or two folders above)"
    )
    data.add_argument(
        "-pfile",
        metavar="FILE",
        type=Path,
        help="plans.json; end slices are taken along their first axis, without plans along the axis of the largest "
        "spacing (default: as for -djfile, if any)",
    )
    data.add_argument(
        "--chill",
        action="store_true",
        help="allow cases that only one of the folders has; not needed for fold_X/validation",
    )
    how = parser.add_argument_group("evaluation settings")
    how.add_argument(
        "--nsd-tolerance", type=float, default=1.0, metavar="MM", help="tolerance of the surface Dice (default: 1 mm)"
    )
    how.add_argument(
        "--absent",
        choices=ABSENT_RULES,
        default="leave-out",
        help="how to score a structure that neither ground truth nor prediction has: leave it out, or count every "
        "metric as perfect (default: leave-out)",
    )
    how.add_argument(
        "--end-stack",
        choices=END_STACKS,
        default="volume",
        help="take the end slices of the volume or of the true foreground (default: volume)",
    )
    how.add_argument(
        "--failure-dice", type=float, default=0.75, help="a case with a lower Dice is a failure (default: 0.75)"
    )
    how.add_argument(
        "-np",
        type=int,
        metavar="N",
        help="cases in parallel (default: nnU-Net's nnUNet_def_n_proc, at most the usable cores)",
    )
    add_progress_bar_flag(parser)


def described_by(arguments: argparse.Namespace) -> DatasetFiles:
    """The dataset's files from the flags of `add_dataset_flags`."""
    return DatasetFiles(dataset=arguments.djfile, plans=arguments.pfile)


def judge_options(arguments: argparse.Namespace) -> JudgeOptions:
    """The evaluation settings from the flags of `add_dataset_flags`."""
    return JudgeOptions(
        metrics=MetricOptions(
            nsd_tolerance_mm=arguments.nsd_tolerance, absent=arguments.absent, end_stack=arguments.end_stack
        ),
        allow_missing=arguments.chill,
        processes=arguments.np,
        show_progress=not arguments.disable_progress_bar,
    )


def evaluate_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("GT", type=Path, help="folder of the ground-truth label maps")
    parser.add_argument(
        "PRED",
        type=Path,
        nargs="+",
        help="folder of predictions by nnunet_ext or stock nnU-Net; probabilities and maps in it are evaluated, too. "
        "Give several for the folds of a cross-validation, such as MODEL/fold_*/validation",
    )
    parser.add_argument(
        "-o", metavar="FOLDER", type=Path, help="folder for the tables; required with several PRED (default: PRED)"
    )
    add_dataset_flags(parser)
    parser.add_argument(
        "--map-labels",
        nargs="+",
        default=(),
        metavar="TRUTH:PRED",
        help="labels of the ground truth and the matching labels of the predictions, as numbers or names, if the "
        "ground truth is from a dataset with other labels: 1:3 2:2 3:1. Several may become one, and 4:0 makes one "
        "background; a case with a label that is not listed is not evaluated",
    )
    ends = parser.add_argument_group("end coefficient")
    ends.add_argument(
        "--end-slices",
        choices=END_VARIANTS,
        default="paper",
        help="variant that is listed first and compared; both are reported (default: paper)",
    )
    ends.add_argument(
        "--end-threshold",
        type=float,
        default=0.8,
        metavar="D",
        help="a case counts if its Dice is above this (default: 0.8)",
    )
    more = parser.add_argument_group("comparisons")
    more.add_argument(
        "--compare",
        metavar="OTHER",
        type=Path,
        action="append",
        default=[],
        help="predictions of the same cases by another method; repeat the flag for each fold",
    )
    add_patients_flag(more)
    more.add_argument(
        "--groups",
        metavar="CSV",
        type=Path,
        help="table (CSV in UTF-8) with a column case; errors are also reported by its other columns",
    )
    more.add_argument("--worst", type=int, default=5, metavar="K", help="number of worst cases to list (default: 5)")


def evaluation_options(arguments: argparse.Namespace) -> EvaluationOptions:
    return EvaluationOptions(
        truths=arguments.GT,
        predictions=tuple(arguments.PRED),
        output=arguments.o,
        described_by=described_by(arguments),
        judge=judge_options(arguments),
        end_variant=arguments.end_slices,
        end_threshold=arguments.end_threshold,
        failure_dice=arguments.failure_dice,
        other=tuple(arguments.compare),
        patients=arguments.patients,
        groups=arguments.groups,
        worst=arguments.worst,
        map_labels=tuple(arguments.map_labels),
    )


def evaluate(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.evaluate import evaluate_predictions

    result = evaluate_predictions(evaluation_options(arguments))
    print(*result.lines, "", f"Tables in {result.folder}", sep="\n")
    for name, problem in result.problems.items():
        print(f"  {name}: {problem}", file=sys.stderr)
    return 1 if result.problems else 0


COMMAND = Command(
    "evaluate",
    "measure how good predictions are, and whether their probabilities and uncertainties can be trusted",
    evaluate_flags,
    evaluate,
    """example:
  $ nnunet_ext evaluate labels results -o evaluation
  20 cases, mean Dice 0.871 ± 0.064

  structure           Dice      HD95 mm         HD mm            NSD  volume error ml      lesion F1  absent
  LV         0.912 ± 0.031  4.12 ± 2.20  9.84 ± 5.13  0.712 ± 0.102     -1.93 ± 4.41  0.950 ± 0.154       0
  ...""",
    status_1="some cases could not be compared; the others are judged",
)
