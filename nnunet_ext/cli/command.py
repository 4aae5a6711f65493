"""The description of a subcommand."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

INTERRUPTED = 130  # exit status after Ctrl-C: 128 + SIGINT, as in shells
EXIT_STATUSES = {
    0: "all that was asked for was done",
    1: "something was not; a message on the standard error says what",
    2: "the command line could not be read: an unknown flag, a missing or impossible value",
    INTERRUPTED: "Ctrl-C; one line says what is complete and how to go on",
}


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
        status_1: when the exit status is 1 although the command ran; "" if never.
    """

    name: str
    summary: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    example: str
    how_to_go_on: Callable[[argparse.Namespace], str] = lambda _: "Run the command again."
    status_1: str = ""


def no_flags(parser: argparse.ArgumentParser) -> None:
    """The subcommand has no flags."""
