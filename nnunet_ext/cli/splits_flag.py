"""The flag that says which cases each fold holds out."""

from __future__ import annotations

import argparse


def add_splits_flag(parser: argparse._ActionsContainer, which: str = "used in training") -> None:
    """Adds `--splits` to a parser or a group of its flags."""
    parser.add_argument(
        "--splits", metavar="FILE", help=f"splits {which} (default: splits_final.json in nnUNet_preprocessed)"
    )
