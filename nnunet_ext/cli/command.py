"""What a subcommand is."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One subcommand: its name, a line for the overview, its flags, what it does, and an example with its output."""

    name: str
    summary: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    example: str


def no_flags(parser: argparse.ArgumentParser) -> None:
    """The subcommand has no flags."""
