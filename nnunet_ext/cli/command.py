"""The description of a subcommand."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

INTERRUPTED = 130  # exit status after Ctrl-C: 128 + SIGINT, as in shells


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Attributes:
        name: name of the subcommand.
        summary: one line for the overview.
        add_flags: adds its flags.
        run: runs it and returns the exit status.
        example: an example with its output.
        how_to_go_on: returns the message after Ctrl-C: what is complete, and how to continue.
    """

    name: str
    summary: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    example: str
    how_to_go_on: Callable[[argparse.Namespace], str] = lambda _: "Run the command again."


def no_flags(parser: argparse.ArgumentParser) -> None:
    """The subcommand has no flags."""
