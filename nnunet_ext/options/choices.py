"""Checks of option values, with one form of message."""

from __future__ import annotations

from collections.abc import Sequence


def require_choice(what: str, value: object, choices: Sequence[object]) -> None:
    """Refuses a value that is not one of the choices.

    Raises:
        ValueError: with the choices and the value found.
    """
    if value not in choices:
        known = ", ".join(str(choice) for choice in choices if choice is not None)
        raise ValueError(f"{what} must be one of {known}; found {value!r}.")


def require_share(what: str, value: float, *, one_allowed: bool) -> None:
    """Refuses a number that is not above 0 and below 1, or at most 1.

    Raises:
        ValueError: with the range and the value found.
    """
    if not (0 < value < 1 or (one_allowed and value == 1)):
        bound = "at most 1" if one_allowed else "below 1"
        raise ValueError(f"{what} must be above 0 and {bound}; found {value}.")
