"""`nnunet_ext splits`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.patients_flag import add_patients_flag
from nnunet_ext.options import SplitOptions

if TYPE_CHECKING:
    from nnunet_ext.commands.splits import SplitReport


def splits_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", required=True, metavar="DATASET", help="dataset name or id, found in nnUNet_raw")
    add_patients_flag(parser, required=True)
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; list the patients on both sides of a fold of the existing splits, exit status 1 if any",
    )
    how = parser.add_argument_group("how to split")
    how.add_argument(
        "--folds",
        type=int,
        default=SplitOptions.folds,
        metavar="N",
        help=f"number of folds (default: {SplitOptions.folds})",
    )
    how.add_argument(
        "--seed",
        type=int,
        default=SplitOptions.seed,
        metavar="N",
        help=f"seed of the random order of the patients (default: {SplitOptions.seed})",
    )
    how.add_argument(
        "--balance",
        metavar="FILE:COLUMN",
        help="CSV table with a column case; each value of COLUMN, such as a diagnosis, is spread evenly over folds",
    )
    how.add_argument(
        "--cases",
        type=int,
        metavar="N",
        help="for learning curves: keep existing splits, and add to them each fold once more with N of its training "
        "cases, whole patients only; those of a smaller N are among those of a larger one with the same --seed",
    )
    how.add_argument(
        "--overwrite",
        action="store_true",
        help="replace existing splits; folds that were trained with them must be retrained",
    )


def splits(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.splits import check_splits, write_splits

    options = SplitOptions(
        dataset=arguments.d,
        patients=arguments.patients,
        folds=arguments.folds,
        seed=arguments.seed,
        balance=arguments.balance,
        overwrite=arguments.overwrite,
        cases=arguments.cases,
    )
    report: SplitReport = check_splits(options) if arguments.check else write_splits(options)
    print(*report.lines, sep="\n")
    return 0 if report.by_patient else 1


COMMAND = Command(
    "splits",
    "write nnU-Net's splits by patient, or list the patients on both sides of a fold",
    splits_flags,
    splits,
    """example:
  $ nnunet_ext splits -d 27 --patients '(patient[0-9]+)_'
  fold  cases held out  patients  cases trained on  patients
     0              32        16               128        64
  ...
  Saved to nnUNet_preprocessed/Dataset027_ACDC/splits_final.json""",
    status_1="with --check, a patient is on both sides of a fold",
)
