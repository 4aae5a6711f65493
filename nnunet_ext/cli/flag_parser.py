"""An argument parser that suggests the flag that was meant."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import NoReturn

# Flags of stock nnU-Net that are left out on purpose.
LEFT_OUT = {
    "--not_on_device": "Leave out --not_on_device: sums that do not fit on the GPU are kept in main memory",
}
# Long words that people type for short flags, used where a subcommand has the flag.
WORDS = {
    **{"input": "-i", "images": "-i", "output": "-o", "model": "-m", "checkpoint": "-chk", "dataset": "-d"},
    **{"plans": "-p", "trainer": "-tr", "configuration": "-c", "fold": "-f", "folds": "-f"},
}
UNKNOWN = re.compile(r"unrecognized arguments: (.*)")


class FlagParser(argparse.ArgumentParser):
    """argparse's parser, with errors that show the subcommand's usage and the flags similar to an unknown one.

    nnU-Net spells `--device` as `-device`, which is easily mistyped.
    """

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """As in argparse, except that the subcommand reports an unknown flag."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            subcommand = self._subparser_of(parsed)
            subcommand.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As in argparse; keeps the arguments, since an unknown flag may be why a required one is missing."""
        self._words = list(args or ())
        return super().parse_known_args(args, namespace)

    _words: Sequence[str] = ()

    def _is_known(self, word: str) -> bool:
        """Whether a word is not a flag, or is one of this parser's; argparse also accepts abbreviated long flags."""
        name = word.partition("=")[0]
        flags = [flag for action in self._actions for flag in action.option_strings]
        return not word.startswith("-") or name in flags or any(flag.startswith(name) for flag in flags)

    def error(self, message: str) -> NoReturn:
        """Prints usage, message and suggestions, and exits with status 2."""
        found = UNKNOWN.match(message)
        words = found[1].split() if found else [word for word in self._words if not self._is_known(word)]
        hints = [hint for word in words if (hint := self.hint(word))]
        super().error(". ".join([message, *hints]))

    def hint(self, word: str) -> str:
        """The suggestion "Did you mean ...?"; "" for a word that is not a flag or is similar to none."""
        if not word.startswith("-"):
            return ""
        if word in LEFT_OUT:
            return LEFT_OUT[word]
        flags = {flag for action in self._actions for flag in action.option_strings}
        known = {name: flag for name, flag in WORDS.items() if flag in flags} | {
            flag.lstrip("-").replace("-", "_"): flag for action in self._actions for flag in action.option_strings
        }
        name = word.partition("=")[0].lstrip("-").replace("-", "_")
        close = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
        return f"Did you mean {' or '.join(known[match] for match in close)}?" if close else ""

    def _subparser_of(self, parsed: argparse.Namespace) -> FlagParser:
        """The parser of the innermost subcommand that was read; this one if there is none."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                chosen = action.choices.get(getattr(parsed, action.dest))
                if isinstance(chosen, FlagParser):
                    return chosen._subparser_of(parsed)
        return self
