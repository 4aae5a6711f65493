"""The flag that says which cases are of one patient."""

from __future__ import annotations

import argparse


def add_patients_flag(parser: argparse._ActionsContainer, *, required: bool = False) -> None:
    """Adds `--patients` to a parser or a group of its flags."""
    default = "" if required else " (default: each case is one)"
    parser.add_argument(
        "--patients",
        required=required,
        metavar="REGEX",
        help="what part of a case's name is the patient, as a group, searched for anywhere in it: "
        f"'(patient[0-9]+)_'{default}",
    )
