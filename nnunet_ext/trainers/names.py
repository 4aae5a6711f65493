"""From a trainer's name to its parts and its class: `nnUNetTrainer` + parts, separated by `_`.

A name made only of parts of the table is parsed, and refused if necessary, without importing torch.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from nnunet_ext.trainers.compatibility import TrainerNameError, UsedPart, require_compatible
from nnunet_ext.trainers.part import PREFIX, Claim, Part, load
from nnunet_ext.trainers.parts import PARTS, RENAMED
from nnunet_ext.trainers.stock_variants import claims_of, loaded_stock_words, stock_variant

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

__all__ = ["PREFIX", "TrainerNameError", "UnknownPartError", "known_spellings", "trainer_class"]


REQUIREMENTS_CHECK = "nnunet_ext.trainers.requirements.CheckedRequirements"
STOCK_TRAINER = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer"


class UnknownPartError(TrainerNameError):
    """A word of the name is neither a part nor a stock variant."""


@cache
def trainer_class(name: str) -> type[nnUNetTrainer]:
    """The class for a trainer's name; every call returns the same object.

    Raises:
        UnknownPartError: if a word is unknown; the message names the closest known ones.
        TrainerNameError: if the parts cannot be combined, or the name is not a trainer's.
    """
    return build_trainer_class(name, PARTS)


def build_trainer_class(name: str, rows: Sequence[Part]) -> type[nnUNetTrainer]:
    """Builds the class for a trainer's name from any table of parts; every call returns a new class.

    Args:
        name: name of the trainer.
        rows: the parts that a name may contain, in the order of inheritance.

    Raises:
        UnknownPartError, TrainerNameError: see `trainer_class`.
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
    """The classes that a trainer of these parts derives from, in the table's order, stock variants last."""
    paths = [part.row.mixin for part in parts if part.row and part.row.mixin]
    if any(part.requires for part in parts):
        paths.insert(0, REQUIREMENTS_CHECK)
    variants = [part.variant for part in parts if part.variant]
    return (*map(load, dict.fromkeys(paths)), *variants) or (load(STOCK_TRAINER),)


def network_words(parts: Sequence[UsedPart]) -> tuple[str, ...]:
    """The words that prediction needs as well: parts that build a network, and parts that modify those."""
    networks = {part.row.spelling for part in parts if part.row and part.is_network}
    return tuple(
        part.word
        for part in parts
        if part.is_network
        or (part.row and networks & {*part.row.changes})
        or Claim.PLANNED_NETWORK in part.variant_claims
    )


def parse(name: str, rows: Sequence[Part] = PARTS) -> list[UsedPart]:
    """The parts of a name in the order of inheritance: parts of the table in its order, then stock variants.

    Raises:
        UnknownPartError, TrainerNameError: see `trainer_class`; combinations are not checked.
    """
    if not name.startswith(PREFIX):
        raise TrainerNameError(
            f"A trainer's name begins with {PREFIX}; found {name!r}. `nnunet_ext trainers` shows examples."
        )
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
    """The part of the table that a word names, or None.

    Raises:
        TrainerNameError: if the number in the word is too small.
    """
    for row in rows:
        found = row.pattern.fullmatch(word)
        if not found:
            continue
        numbers = tuple(map(int, found["number"].split("x"))) if row.attribute else ()
        if any(number < row.smallest for number in numbers):
            raise TrainerNameError(
                f"The number in {row.spelling} must be at least {row.smallest}; found {word!r}. Write {row.example}, "
                f"for example."
            )
        return UsedPart(word, row, numbers)
    return None


def stock_part(words: list[str]) -> tuple[UsedPart, list[str]]:
    """The longest stock variant that the words begin with (`onlyMirror01_DA5`), and the words after it.

    Raises:
        TrainerNameError: if the first word was renamed.
        UnknownPartError: if no stock variant begins with the first word.
    """
    if words[0] in RENAMED:
        raise TrainerNameError(f"{words[0]} is called {RENAMED[words[0]]} now. Write that instead.")
    for end in range(len(words), 0, -1):
        candidate = "_".join(words[:end])
        variant = stock_variant(candidate)
        if variant is not None:
            return UsedPart(candidate, variant=variant, variant_claims=claims_of(variant)), words[end:]
    raise UnknownPartError(unknown_part_message(words[0]))


def known_spellings() -> list[str]:
    """The spellings of all parts that users may write."""
    return [part.spelling for part in PARTS if not part.internal]


def close_spellings(word: str, spellings: list[str]) -> list[str]:
    """The spellings that are similar to a mistyped word, the closest first; numbers are ignored."""
    bare = {re.sub(r"<\w>|\d", "", spelling).lower(): spelling for spelling in reversed(spellings)}
    close = difflib.get_close_matches(re.sub(r"\d", "", word).lower(), bare, n=3, cutoff=0.7)
    return [bare[match] for match in close]


def unknown_part_message(word: str) -> str:
    """The error message for an unknown word."""
    close = close_spellings(word, known_spellings()) or close_spellings(word, loaded_stock_words())
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return (
        f"{word!r} is neither a part of a trainer's name nor a stock variant. {hint}"
        f"Known parts: {', '.join(known_spellings())}. `nnunet_ext trainers` explains them."
    )


def resembles_ours(name: str) -> bool:
    """Whether a word of the name is a part of the table, or similar to one."""
    words = words_of(name)
    return any(part.pattern.fullmatch(word) for part in PARTS for word in words) or any(
        close_spellings(word, known_spellings()) for word in words
    )


def __getattr__(name: str) -> type:
    """Lets pickle find the trainer classes as attributes of this module."""
    if name.startswith(PREFIX):
        try:
            return trainer_class(name)
        except TrainerNameError as error:
            raise AttributeError(str(error)) from None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
