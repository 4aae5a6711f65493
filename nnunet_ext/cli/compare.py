"""`nnunet_ext compare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.patients_flag import add_patients_flag
from nnunet_ext.options import CompareOptions


def compare_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "DIR", type=Path, nargs="*", help="folder written by nnunet_ext evaluate; each one is a method"
    )
    parser.add_argument(
        "--group",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "DIR"),
        help="a method with several runs, such as seeds or folds: --group stock eval/stock_seed*",
    )
    parser.add_argument(
        "--figures",
        nargs="+",
        default=(),
        metavar="FIGURE",
        help="columns of case_metrics.csv or structures and columns of metrics.csv: mean_dice 'LV hd95_mm' "
        "(default: Dice, HD95, NSD, end coefficient and calibration)",
    )
    add_patients_flag(parser)
    parser.add_argument("-o", metavar="FOLDER", type=Path, help="folder for compare.json and compare.csv")


def methods_of(folders: list[Path], groups: list[list[str]]) -> dict[str, tuple[Path, ...]]:
    """Method name to folders: single folders under their own names (paths where two names agree), then groups.

    Raises:
        ValueError: if a group has no folder, or two methods have the same name.
    """
    short = [folder.absolute().name for folder in folders]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    named: list[tuple[str, tuple[Path, ...]]] = [
        (name, (folder,)) for name, folder in zip(names, folders, strict=True)
    ]
    for name, *members in groups:
        if not members:
            raise ValueError(f"A group is a name and its folders; found {name} alone. Use --group NAME DIR DIR.")
        named.append((name, tuple(map(Path, members))))
    methods = dict(named)
    if len(methods) < len(named):
        repeated = sorted({name for name, _ in named if [other for other, _ in named].count(name) > 1})
        raise ValueError(f"Names of methods must differ; found {', '.join(repeated)} twice. Rename a group.")
    return methods


def compare_options(arguments: argparse.Namespace) -> CompareOptions:
    return CompareOptions(
        methods=methods_of(arguments.DIR, arguments.group),
        figures=tuple(arguments.figures),
        patients=arguments.patients,
        output=arguments.o,
    )


def compare(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.compare import compare_evaluations

    result = compare_evaluations(compare_options(arguments))
    print(*result.lines, sep="\n")
    if result.folder:
        print("", f"Tables in {result.folder}", sep="\n")
    return 0


COMMAND = Command(
    "compare",
    "compare methods over seeds and folds: mean and spread, paired intervals by patient, ranks",
    compare_flags,
    compare,
    """example:
  $ nnunet_ext compare --group stock eval/stock_* --group streaming eval/streaming_* --patients '(patient[0-9]+)_'
  2 methods on 40 cases of 20 patients

  ece (lower is better)  runs    mean  ± runs  ± cases  rank      interval  difference to stock  ...
  stock                     3  0.0256  0.0011   0.0142  1.78  1.65 to 1.88
  streaming                 3  0.0219  0.0009   0.0131  1.22  1.12 to 1.35              -0.0037  ...
  ...""",
)
