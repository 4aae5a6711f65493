"""`nnunet_ext demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.cli.command import Command


def demo_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        default="demo",
        metavar="FOLDER",
        help="output folder; an earlier demo in it is overwritten (default: demo)",
    )


def demo(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.demo import run_demo

    run_demo(Path(arguments.o), say=print)
    return 0


COMMAND = Command(
    "demo",
    "phantom data, training, calibration, prediction and report: under 6 minutes on two CPU cores",
    demo_flags,
    demo,
    """example:
  $ nnunet_ext demo -o demo
  ...
  Results:
    demo/report.html            the report: verdicts, worst cases first, metrics""",
)
