"""A parser that says which flag was meant."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import NoReturn

UNKNOWN = re.compile(r"unrecognized arguments: (.*)")


class FlagParser(argparse.ArgumentParser):
    """argparse's, whose errors show the usage of the subcommand and the flags that resemble an unknown one.

    `--device` of `predict` is `-device`, as nnU-Net spells it: a person types the other soon enough.
    """

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """As argparse's; an unknown flag is the subcommand's error."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            subcommand = self._subparser_of(parsed)
            subcommand.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Prints the usage and the message, with what was meant, and ends with status 2."""
        found = UNKNOWN.match(message)
        hints = [hint for word in (found[1].split() if found else []) if (hint := self.hint(word))]
        super().error(". ".join([message, *hints]))

    def hint(self, word: str) -> str:
        """Did you mean ...; "" for a word that is no flag, or resembles none."""
        if not word.startswith("-"):
            return ""
        known = {
            flag.lstrip("-").replace("-", "_"): flag for action in self._actions for flag in action.option_strings
        }
        name = word.partition("=")[0].lstrip("-").replace("-", "_")
        close = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
        return f"Did you mean {' or '.join(known[match] for match in close)}?" if close else ""

    def _subparser_of(self, parsed: argparse.Namespace) -> FlagParser:
        """The parser of the subcommand that was read; this one if there is none."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                chosen = action.choices.get(getattr(parsed, action.dest))
                if isinstance(chosen, FlagParser):
                    return chosen
        return self
