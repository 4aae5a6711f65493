"""Decides which parts can be combined in one name, from the table alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnunet_ext.trainers.part import Claim, Kind, Part, Requirement


class TrainerNameError(ValueError):
    """A trainer's name cannot be resolved; the message says why and what to write instead."""


@dataclass(frozen=True)
class UsedPart:
    """A part as it is written in a name: `Cyclical5` is the row `Cyclical<M>` with the number 5.

    Attributes:
        word: the part as written in the name.
        row: its row of the table; None for a stock variant.
        numbers: the numbers in the word.
        variant: nnU-Net's class; None for a part of the table.
        variant_claims: what a stock variant sets.
    """

    word: str
    row: Part | None = None
    numbers: tuple[int, ...] = ()
    variant: type | None = None
    variant_claims: frozenset[Claim] = frozenset()

    @property
    def claims(self) -> frozenset[Claim]:
        """What the part sets."""
        return self.row.claims if self.row else self.variant_claims

    @property
    def requires(self) -> frozenset[Requirement]:
        """What the part requires; stock variants check their own requirements."""
        return self.row.requires if self.row else frozenset()

    @property
    def values(self) -> dict[str, object]:
        """The class attributes that the part sets."""
        if self.row is None:
            return {}
        if not self.row.attribute:
            return dict(self.row.values)
        return {**self.row.values, self.row.attribute: self.numbers if self.row.several else self.numbers[0]}

    @property
    def is_network(self) -> bool:
        """Whether the part is of the kind "network"."""
        return self.row is not None and self.row.kind is Kind.NETWORK


def require_compatible(name: str, parts: Sequence[UsedPart]) -> None:
    """Refuses a combination that cannot be built.

    Raises:
        TrainerNameError: if a part modifies another one that is not in the name, requires what another part replaces,
            is repeated, or sets what another part sets.
    """
    for reason in (what_is_missing(parts), what_is_ruled_out(parts), what_collides(parts)):
        if reason:
            raise TrainerNameError(f"{name} cannot be built: {reason}")


def what_is_missing(parts: Sequence[UsedPart]) -> str:
    """The reason if a part modifies another one that is not in the name, else ""."""
    spellings = {part.row.spelling for part in parts if part.row}
    for part in parts:
        if part.row and part.row.changes and spellings.isdisjoint(part.row.changes):
            *others, last = part.row.changes
            changed = f"{', '.join(others)} or {last}" if others else last
            return f"{part.word} changes {changed}, which the name lacks. Write {part.row.example}, for example."
    return ""


def what_is_ruled_out(parts: Sequence[UsedPart]) -> str:
    """The reason if a part requires what another part rules out, else ""."""
    for part in parts:
        for other in parts:
            for requirement in part.requires & (other.row.lacks if other.row else frozenset()):
                return f"{part.word} needs {requirement.words}, which {other.word} does not provide. Leave one out."
    return ""


def what_collides(parts: Sequence[UsedPart]) -> str:
    """The reason if a part is repeated or two parts set the same thing, else ""."""
    shared = frozenset().union(*(part.row.shares for part in parts if part.row))
    for position, part in enumerate(parts):
        for earlier in parts[:position]:
            common = part.claims & earlier.claims
            if part.is_network and earlier.is_network and part.row is not earlier.row:
                common -= shared
            if common:
                claim = next(claim for claim in Claim if claim in common)
                return f"{earlier.word} and {part.word} both set {claim.value}. Leave one out."
            if repeats(part, earlier):
                return f"{part.word} repeats {earlier.word}. Leave one out."
    return ""


def repeats(part: UsedPart, earlier: UsedPart) -> bool:
    """Whether a part is the same as an earlier one, or a variant of it."""
    if part.variant and earlier.variant:
        return issubclass(part.variant, earlier.variant) or issubclass(earlier.variant, part.variant)
    return part.row is not None and part.row is earlier.row
