"""The flag that applies what `calibrate` fitted."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal


def add_calibrated_flag(parser: argparse._ActionsContainer, effect: str) -> None:
    """Adds `--calibrated`; `effect` is what the calibration does, for the help text."""
    parser.add_argument(
        "--calibrated",
        nargs="?",
        const=True,
        default=None,
        metavar="FILE",
        help=f"apply the calibration of nnunet_ext calibrate: {effect} (default FILE: calibration.json in the model "
        "folder; required with several -m)",
    )


def chosen_calibration(arguments: argparse.Namespace) -> Path | Literal[True] | None:
    """The file of `--calibrated`; True takes that of the model folder, None applies none."""
    chosen: str | Literal[True] | None = arguments.calibrated
    return Path(chosen) if isinstance(chosen, str) else chosen
