"""`nnunet_ext report`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.evaluate import add_dataset_flags, described_by, judge_options
from nnunet_ext.options import ReportOptions


def report_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("PRED", type=Path, help="folder written by nnunet_ext predict")
    parser.add_argument(
        "--gt", metavar="FOLDER", type=Path, help="folder of the ground-truth label maps, to evaluate the predictions"
    )
    parser.add_argument(
        "-i",
        metavar="FOLDER",
        type=Path,
        help="folder of the images (default: those that were predicted, if they still exist)",
    )
    parser.add_argument(
        "-o", metavar="FILE", type=Path, help="the HTML file; its folder must exist (default: PRED/report.html)"
    )
    parser.add_argument(
        "--cases", type=int, default=12, metavar="N", help="number of cases shown with images (default: 12)"
    )
    add_dataset_flags(parser)


def report_options(arguments: argparse.Namespace) -> ReportOptions:
    return ReportOptions(
        predictions=arguments.PRED,
        truths=arguments.gt,
        images=arguments.i,
        page=arguments.o,
        cases=arguments.cases,
        failure_dice=arguments.failure_dice,
        described_by=described_by(arguments),
        judge=judge_options(arguments),
    )


def report(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.report import report_folder

    result = report_folder(report_options(arguments))
    print(*result.first_cases, "", *result.lines, f"page: {result.page}", sep="\n")
    for name, problem in result.problems.items():
        print(f"  {name}: {problem}", file=sys.stderr)
    return 1 if result.problems else 0


COMMAND = Command(
    "report",
    "write an HTML page that shows the worst cases first",
    report_flags,
    report,
    """example:
  $ nnunet_ext report results
  open first  pairwise Dice  foreground entropy  mean entropy
  heart_011   0.607          0.319               0.036
  heart_010   0.820          0.241               0.029
  and 2 more in cases.csv

  page: results/report.html""",
    status_1="some cases could not be compared; the others are judged and shown",
)
