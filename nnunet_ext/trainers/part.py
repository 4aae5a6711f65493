"""What a row of the table of parts holds."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One word of a trainer's name.

    Attributes:
        spelling: the word, with `<M>` where a number stands: "Cyclical", "Cyclical<M>", "<n>epochs".
        mixin: the class that a trainer of this name derives from.
        claims: what the part replaces; two parts with the same claim cannot be combined.
        summary: what it does, for the table.
        paper: where it comes from, or "".
        example: a name that uses it.
        attribute: class attribute that takes the number.
        smallest: the smallest number allowed.
        internal: not for users to train with.
    """

    spelling: str
    mixin: type
    claims: frozenset[str]
    summary: str
    paper: str
    example: str
    attribute: str = ""
    smallest: int = 1
    internal: bool = False

    @property
    def pattern(self) -> re.Pattern[str]:
        """What a word of this spelling looks like; the group `number` is there if the spelling has one."""
        return re.compile(re.sub(r"<\w>", lambda _: r"(?P<number>\d+)", self.spelling))
