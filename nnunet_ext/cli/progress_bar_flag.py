"""The flag that leaves out the progress bar."""

from __future__ import annotations

import argparse


def add_progress_bar_flag(parser: argparse._ActionsContainer) -> None:
    """Adds `--disable_progress_bar` to a parser or a group of its flags."""
    parser.add_argument("--disable_progress_bar", action="store_true", help="no progress bar, for batch jobs")
