"""A parser that says which flag was meant."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import NoReturn

# Flags of stock nnU-Net that are left out on purpose.
LEFT_OUT = {
    "--not_on_device": "Leave out --not_on_device: sums that do not fit on the GPU go to the computer's memory",
}
# What people type for flags of one letter, as far as a subcommand has them.
WORDS = {
    **{"input": "-i", "images": "-i", "output": "-o", "model": "-m", "checkpoint": "-chk", "dataset": "-d"},
    **{"plans": "-p", "trainer": "-tr", "configuration": "-c", "fold": "-f", "folds": "-f"},
}
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

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's; the words are kept, since an unknown flag may be why a required one is missing."""
        self._words = list(args or ())
        return super().parse_known_args(args, namespace)

    _words: Sequence[str] = ()

    def _is_known(self, word: str) -> bool:
        """Whether a word is no flag, or one that this parser reads: argparse takes long ones cut short, too."""
        name = word.partition("=")[0]
        flags = [flag for action in self._actions for flag in action.option_strings]
        return not word.startswith("-") or name in flags or any(flag.startswith(name) for flag in flags)

    def error(self, message: str) -> NoReturn:
        """Prints the usage and the message, with what was meant, and ends with status 2."""
        found = UNKNOWN.match(message)
        words = found[1].split() if found else [word for word in self._words if not self._is_known(word)]
        hints = [hint for word in words if (hint := self.hint(word))]
        super().error(". ".join([message, *hints]))

    def hint(self, word: str) -> str:
        """Did you mean ...; "" for a word that is no flag, or resembles none."""
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
        """The parser of the subcommand that was read; this one if there is none."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                chosen = action.choices.get(getattr(parsed, action.dest))
                if isinstance(chosen, FlagParser):
                    return chosen
        return self
