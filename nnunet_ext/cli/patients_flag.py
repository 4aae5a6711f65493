"""The flag that says which cases belong to one patient."""

from __future__ import annotations

import argparse


def add_patients_flag(parser: argparse._ActionsContainer, *, required: bool = False) -> None:
    """Adds `--patients` to a parser or a group of its flags."""
    default = "" if required else " (default: each case is its own patient)"
    parser.add_argument(
        "--patients",
        required=required,
        metavar="REGEX",
        help="pattern, searched for anywhere in a case's name, whose first group is the patient: "
        f"'(patient[0-9]+)_'{default}",
    )
