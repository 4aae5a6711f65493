"""Recorded settings of an ensemble, named as the flags that set them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Difference(NamedTuple):
    """A setting that differs: its flag without dashes, its recorded value, and the one that is asked for."""

    name: str
    recorded: object
    asked: object


def by_flag(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under the names of flags: whether images were mirrored is what `--tta` says."""
    named = {name: value for name, value in settings.items() if name not in ("mirroring", "tta")}
    transforms = settings.get("tta")
    if transforms is None and "mirroring" in settings:
        transforms = "flips" if settings["mirroring"] else "none"
    return named if transforms is None else {**named, "tta": transforms}


def differences(recorded: Mapping[str, Any], asked: Mapping[str, Any]) -> list[Difference]:
    """The settings that differ; one that only one of the two has counts as None in the other."""
    ours, theirs = by_flag(recorded), by_flag(asked)
    return [
        Difference(name, ours.get(name), theirs.get(name))
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    ]
