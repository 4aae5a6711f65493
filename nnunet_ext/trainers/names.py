"""From a trainer's name to its parts and its class: `nnUNetTrainer` + parts, the first attached, `_` between."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nnunetv2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

from nnunet_ext.trainers.part import Part
from nnunet_ext.trainers.parts import PARTS

PREFIX = "nnUNetTrainer"
NETWORK = "the network"
NETWORK_HOOK = "build_network_architecture"

# What a stock variant replaces, by the hook that it overrides. Two parts may not replace the same thing.
CLAIMS_BY_HOOK = {
    NETWORK_HOOK: NETWORK,
    "_build_loss": "the loss",
    "configure_optimizers": "the optimizer",
    "on_train_epoch_start": "the learning-rate schedule",
    "configure_rotation_dummyDA_mirroring_and_inital_patch_size": "mirroring and rotation",
    "get_training_transforms": "the augmentation",
}
# Variants whose configure_optimizers brings a schedule of its own as well.
SCHEDULING_VARIANTS = ("CosAnneal", "warmup", "Primus")


@dataclass(frozen=True)
class UsedPart:
    """A part as a name spells it: `Cyclical5` is Cyclical with `{"cycles": 5}`; a stock variant has no numbers."""

    word: str
    mixin: type
    claims: frozenset[str]
    attributes: tuple[tuple[str, int], ...] = ()


class TrainerNameError(ValueError):
    """A trainer's name that cannot be resolved; the message says why and what to write instead."""


class UnknownPartError(TrainerNameError):
    """A word that is neither a part nor a stock variant."""


@cache
def trainer_class(name: str) -> type[nnUNetTrainer]:
    """The class for a trainer's name; the same object at every call.

    Raises:
        UnknownPartError: if a word is unknown; names the closest known ones.
        TrainerNameError: if two parts replace the same thing, or the name is not a trainer's.
    """
    used = parse(name)
    require_compatible(name, used)
    bases = tuple(part.mixin for part in used) or (nnUNetTrainer,)
    attributes: dict[str, Any] = {key: value for part in used for key, value in part.attributes}
    attributes["network_parts"] = tuple(part.word for part in used if builds_network(part.mixin))
    docstring = " + ".join(part.word for part in used) or "nnU-Net's own trainer."
    return type(name, bases, {"__module__": __name__, "__doc__": docstring, **attributes})


def builds_network(mixin: type) -> bool:
    """Whether a part builds another network than nnU-Net does."""
    return getattr(mixin, NETWORK_HOOK, None) is not nnUNetTrainer.build_network_architecture


def parse(name: str) -> list[UsedPart]:
    """The parts of a name in the order of inheritance: our parts as the table has them, then stock variants."""
    if not name.startswith(PREFIX):
        raise TrainerNameError(f"A trainer's name begins with {PREFIX}; found {name!r}.")
    words = [word for word in name.removeprefix(PREFIX).split("_") if word]
    own: list[tuple[int, UsedPart]] = []
    foreign: list[list[str]] = [[]]  # runs of words that no part of ours explains
    for word in words:
        match = next(((i, m) for i, part in enumerate(PARTS) if (m := part.pattern.fullmatch(word))), None)
        if match is None:
            foreign[-1].append(word)
            continue
        position, found = match
        part = PARTS[position]
        attributes = ((part.attribute, part_number(word, part, found)),) if part.attribute else ()
        own.append((position, UsedPart(word, part.mixin, part.claims, attributes)))
        foreign.append([])
    own.sort(key=lambda entry: entry[0])
    return [part for _, part in own] + [part for run in foreign for part in stock_parts(run)]


def part_number(word: str, part: Part, found: re.Match[str]) -> int:
    """The number in a word; refuses one that is too small."""
    number = int(found["number"])
    if number < part.smallest:
        raise TrainerNameError(f"The number in {part.spelling} must be at least {part.smallest}; found {word!r}.")
    return number


def stock_parts(words: list[str]) -> Iterator[UsedPart]:
    """The stock variants that a run of words names, each as long as possible: `onlyMirror01_DA5` is one variant."""
    while words:
        for end in range(len(words), 0, -1):
            candidate = "_".join(words[:end])
            variant = stock_class(f"{PREFIX}{candidate}") or stock_class(f"{PREFIX}_{candidate}")
            if variant is not None:
                yield UsedPart(candidate, variant, claims_of_stock(variant))
                words = words[end:]
                break
        else:
            raise UnknownPartError(unknown_part_message(words[0]))


@cache
def stock_class(name: str) -> type[nnUNetTrainer] | None:
    """nnU-Net's own trainer of this name, or None; external folders are not searched."""
    package = Path(nnunetv2.__path__[0])
    return recursive_find_python_class(
        str(package / "training" / "nnUNetTrainer"), name, "nnunetv2.training.nnUNetTrainer", str(package)
    )


def claims_of_stock(variant: type[nnUNetTrainer]) -> frozenset[str]:
    """What a stock variant replaces, read off the hooks that it overrides."""
    own_classes = variant.__mro__[: variant.__mro__.index(nnUNetTrainer)]
    claims = {claim for hook, claim in CLAIMS_BY_HOOK.items() if any(hook in vars(cls) for cls in own_classes)}
    if any(word in cls.__name__ for cls in own_classes for word in SCHEDULING_VARIANTS):
        claims.add("the learning-rate schedule")
    if any(re.search(r"\d+ep(ochs?)?(_|$)", cls.__name__) for cls in own_classes):
        claims.add("the number of epochs")
    return frozenset(claims)


def require_compatible(name: str, parts: list[UsedPart]) -> None:
    """Refuses a combination in which two parts replace the same thing, or a part stands twice."""
    claimed: dict[str, str] = {}
    for position, part in enumerate(parts):
        for earlier in parts[:position]:
            if not part.claims & earlier.claims and _overlap(part.mixin, earlier.mixin):
                raise TrainerNameError(f"{name} cannot be built: {part.word} repeats {earlier.word}. Leave one out.")
        for claim in sorted(part.claims, reverse=True):  # "the ..." says more than a file's name
            if claim in claimed:
                raise TrainerNameError(
                    f"{name} cannot be built: {claimed[claim]} and {part.word} both set {claim}. Leave one out."
                )
            claimed[claim] = part.word


def _overlap(first: type, second: type) -> bool:
    return issubclass(first, second) or issubclass(second, first)


def known_spellings() -> list[str]:
    """The words that users may write, as the table spells them."""
    return [part.spelling for part in PARTS if not part.internal]


def loaded_stock_words() -> list[str]:
    """The words of nnU-Net's own variants, as far as their modules are imported; a search imports all."""
    words, classes = [], [nnUNetTrainer]
    while classes:
        subclasses = [cls for cls in classes.pop().__subclasses__() if cls.__module__.startswith("nnunetv2.")]
        words += [cls.__name__.removeprefix(PREFIX).lstrip("_") for cls in subclasses]
        classes += subclasses
    return words


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
    words = [word for word in name.removeprefix(PREFIX).split("_") if word]
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
