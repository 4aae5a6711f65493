"""`nnunet_ext evaluate`."""

from __future__ import annotations

import argparse
import sys

from nnunet_ext.cli.command import Command


def add_dataset_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of everything that compares predictions with their truth."""
    data = parser.add_argument_group("dataset")
    data.add_argument("-djfile", metavar="FILE", help="dataset.json (default: the one in PRED)")
    data.add_argument("-pfile", metavar="FILE", help="plans.json (default: the one in PRED)")
    data.add_argument("--chill", action="store_true", help="cases that only one of the folders has are no problem")
    how = parser.add_argument_group("how to judge")
    how.add_argument(
        "--nsd-tolerance", type=float, default=1.0, metavar="MM", help="of the surface Dice (default: 1 mm)"
    )
    how.add_argument("--failure-dice", type=float, default=0.75, help="a case fails below it (default: 0.75)")
    how.add_argument("-np", type=int, metavar="N", help="cases at a time (default: nnU-Net's nnUNet_def_n_proc)")
    parser.add_argument("--disable_progress_bar", action="store_true", help="for logs of batch jobs")


def evaluate_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("GT", help="folder with the true label maps")
    parser.add_argument(
        "PRED", help="folder with predictions, ours or stock's; its probabilities and maps count, too"
    )
    parser.add_argument("-o", metavar="FOLDER", help="where the tables go (default: PRED)")
    add_dataset_flags(parser)
    more = parser.add_argument_group("comparisons")
    more.add_argument("--compare", metavar="OTHER", help="predictions of the same cases by something else")
    more.add_argument(
        "--patients",
        metavar="REGEX",
        help="what part of a case's name is the patient, as a group: '(patient[0-9]+)_' (default: each case is one)",
    )
    more.add_argument(
        "--groups", metavar="CSV", help="a table with a column case; errors are told for its other columns"
    )
    more.add_argument(
        "--worst", type=int, default=5, metavar="K", help="how many of the worst cases to name (default: 5)"
    )


def evaluate(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.evaluate import evaluate_predictions

    result = evaluate_predictions(arguments)
    print(*result.lines, "", f"Tables in {result.folder}", sep="\n")
    for name, problem in result.problems.items():
        print(f"  {name}: {problem}", file=sys.stderr)
    return 1 if result.problems else 0


COMMAND = Command(
    "evaluate",
    "say how good predictions are, and whether their probabilities and uncertainties can be trusted",
    evaluate_flags,
    evaluate,
    """example:
  $ nnunet_ext evaluate labels results -o evaluation
  20 cases, mean Dice 0.871

  structure   Dice  HD95 mm  HD mm    NSD  volume error ml  lesion F1
  LV         0.912     4.12   9.84  0.712            -1.93      0.950
  ...""",
)
