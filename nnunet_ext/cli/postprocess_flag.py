"""The flag that applies post-processing, which `predict` and `calibrate` have."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal


def add_postprocess_flag(parser: argparse._ActionsContainer) -> None:
    """Adds `--postprocess` to a parser or a group of its flags."""
    parser.add_argument(
        "--postprocess",
        nargs="?",
        const=True,
        default=None,
        metavar="FILE",
        help="post-process each segmentation with what nnunet_ext postprocess chose, or with nnU-Net's own "
        "postprocessing.pkl, of which no code is run; probabilities, maps and members' segmentations do not change "
        "(default FILE: postprocess.json in the model folder; required with several -m)",
    )


def chosen_postprocessing(arguments: argparse.Namespace) -> Path | Literal[True] | None:
    """The value of the flag: a file, True for the one in the model folder, or None."""
    chosen = arguments.postprocess
    return Path(chosen) if isinstance(chosen, str) else chosen
