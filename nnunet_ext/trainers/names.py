"""From a trainer's name to its parts and its class: `nnUNetTrainer` + parts, the first attached, `_` between.

A name of parts of the table alone is read and refused without importing torch.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from nnunet_ext.trainers.compatibility import TrainerNameError, UsedPart, require_compatible
from nnunet_ext.trainers.part import Claim, Part, load
from nnunet_ext.trainers.parts import PARTS, RENAMED
from nnunet_ext.trainers.stock_variants import PREFIX, claims_of, loaded_stock_words, stock_class, stock_variant

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

__all__ = ["PREFIX", "TrainerNameError", "UnknownPartError", "known_spellings", "stock_class", "trainer_class"]


REQUIREMENTS_CHECK = "nnunet_ext.trainers.requirements.CheckedRequirements"
STOCK_TRAINER = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer"


class UnknownPartError(TrainerNameError):
    """A word that is neither a part nor a stock variant."""


@cache
def trainer_class(name: str) -> type[nnUNetTrainer]:
    """The class for a trainer's name; the same object at every call.

    Raises:
        UnknownPartError: if a word is unknown; names the closest known ones.
        TrainerNameError: if the parts do not go together, or the name is not a trainer's.
    """
    return build_trainer_class(name, PARTS)


def build_trainer_class(name: str, rows: Sequence[Part]) -> type[nnUNetTrainer]:
    """The same from a table of one's own, built anew at every call.

    Args:
        name: of the trainer.
        rows: the parts that a name may hold, in the order of inheritance.

    Raises:
        UnknownPartError, TrainerNameError: as `trainer_class`.
    """
    parts = parse(name, rows)
    require_compatible(name, parts)
    attributes: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": " + ".join(part.word for part in parts) or "nnU-Net's own trainer.",
        "network_parts": network_words(parts),
        "requirements": tuple((part.word, requirement) for part in parts for requirement in part.requires),
    }
    for part in parts:
        attributes |= part.values
    return type(name, base_classes(parts), attributes)


def base_classes(parts: Sequence[UsedPart]) -> tuple[type, ...]:
    """The classes that a trainer of these parts derives from, in the table's order, stock's variants last."""
    paths = [part.row.mixin for part in parts if part.row and part.row.mixin]
    if any(part.requires for part in parts):
        paths.insert(0, REQUIREMENTS_CHECK)
    variants = [part.variant for part in parts if part.variant]
    return (*map(load, dict.fromkeys(paths)), *variants) or (load(STOCK_TRAINER),)


def network_words(parts: Sequence[UsedPart]) -> tuple[str, ...]:
    """The words that a prediction needs, too: of networks, and of what changes those."""
    networks = {part.row.spelling for part in parts if part.row and part.is_network}
    return tuple(
        part.word
        for part in parts
        if part.is_network
        or (part.row and networks & {*part.row.changes})
        or Claim.PLANNED_NETWORK in part.variant_claims
    )


def parse(name: str, rows: Sequence[Part] = PARTS) -> list[UsedPart]:
    """The parts of a name in the order of inheritance: our parts as the table has them, then stock variants."""
    if not name.startswith(PREFIX):
        raise TrainerNameError(f"A trainer's name begins with {PREFIX}; found {name!r}.")
    own: list[UsedPart] = []
    variants: list[UsedPart] = []
    words = words_of(name)
    while words:
        part = table_part(words[0], rows)
        if part is None:
            part, words = stock_part(words)
            variants.append(part)
        else:
            own.append(part)
            words = words[1:]
    return [part for row in rows for part in own if part.row is row] + variants


def words_of(name: str) -> list[str]:
    """The words of a name."""
    return [word for word in name.removeprefix(PREFIX).split("_") if word]


def table_part(word: str, rows: Sequence[Part] = PARTS) -> UsedPart | None:
    """The part of the table that a word names, or None; refuses a number that is too small."""
    for row in rows:
        found = row.pattern.fullmatch(word)
        if not found:
            continue
        number = int(found["number"]) if row.attribute else None
        if number is not None and number < row.smallest:
            raise TrainerNameError(f"The number in {row.spelling} must be at least {row.smallest}; found {word!r}.")
        return UsedPart(word, row, number)
    return None


def stock_part(words: list[str]) -> tuple[UsedPart, list[str]]:
    """The stock variant that words begin with and the words after it; as long as possible: `onlyMirror01_DA5`."""
    if words[0] in RENAMED:
        raise TrainerNameError(f"{words[0]} is called {RENAMED[words[0]]} now. Write that instead.")
    for end in range(len(words), 0, -1):
        candidate = "_".join(words[:end])
        variant = stock_variant(candidate)
        if variant is not None:
            return UsedPart(candidate, variant=variant, variant_claims=claims_of(variant)), words[end:]
    raise UnknownPartError(unknown_part_message(words[0]))


def known_spellings() -> list[str]:
    """The words that users may write, as the table spells them."""
    return [part.spelling for part in PARTS if not part.internal]


def close_spellings(word: str, spellings: list[str]) -> list[str]:
    """Spellings that a mistyped word resembles, the closest first; numbers do not count."""
    bare = {re.sub(r"<\w>|\d", "", spelling).lower(): spelling for spelling in reversed(spellings)}
    close = difflib.get_close_matches(re.sub(r"\d", "", word).lower(), bare, n=3, cutoff=0.7)
    return [bare[match] for match in close]


def unknown_part_message(word: str) -> str:
    """What to say of a word that names nothing."""
    close = close_spellings(word, known_spellings()) or close_spellings(word, loaded_stock_words())
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return (
        f"{word!r} is neither a part of a trainer's name nor a stock variant. {hint}"
        f"Known parts: {', '.join(known_spellings())}. `nnunet_ext trainers` explains them."
    )


def resembles_ours(name: str) -> bool:
    """Whether a word of the name is a part of ours, or close to one."""
    words = words_of(name)
    return any(part.pattern.fullmatch(word) for part in PARTS for word in words) or any(
        close_spellings(word, known_spellings()) for word in words
    )


def __getattr__(name: str) -> type:
    """Lets pickle find the classes, which live in this module under their names."""
    if name.startswith(PREFIX):
        try:
            return trainer_class(name)
        except TrainerNameError as error:
            raise AttributeError(str(error)) from None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
