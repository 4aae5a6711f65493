"""The form of `calibration.json` where it is not part of another object: settings, origin, figures and cases."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

OF_NUMBERS = ("quality", "folds")  # sections of the figures; earlier versions lack some
OF_OBJECTS = ("temperature", "confidences")  # with numbers in them


def require_form(content: Mapping[str, Any]) -> None:
    """Refuses a file whose parts are of another kind than `calibrate` writes, before anything relies on them.

    Args:
        content: of the file.

    Raises:
        KeyError, TypeError: if a part is missing, or of another kind.
    """
    for name in ("settings", "fitted_on", "figures"):
        _require_object(content[name], name)
    figures = content["figures"]
    for section in OF_NUMBERS:
        _require_numbers(figures.get(section, {}), section)
    for section in OF_OBJECTS:
        _require_object(figures.get(section, {}), section)
        for name, numbers in figures.get(section, {}).items():
            _require_numbers(numbers, f"{section}.{name}")
    kinds = content["fitted_on"].get("temperatures", {})
    _require_object(kinds, "temperatures")
    for kind, fitted in kinds.items():
        _require_object(fitted, kind)
        _require_list(fitted["values"], f"{kind}.values")
    _require_list(content["fitted_on"]["members"], "members")
    for member in content["fitted_on"]["members"]:
        _require_object(member, "a member")
        if not isinstance(member["name"], str) or not isinstance(member["sha256"], str):
            raise TypeError("a member has another name or hash than a text")
    _require_list(content["cases"], "cases")
    for case in content["cases"]:
        _require_object(case, "a case")


def _require_numbers(value: Any, name: str) -> None:
    """Refuses all but an object of numbers, null where there is none; the Dice of the folds is such an object too."""
    _require_object(value, name)
    for key, figure in value.items():
        if key == "mean_dice":
            _require_numbers(figure, key)
        elif figure is not None and not isinstance(figure, Real):
            raise TypeError(f"{name}.{key} is not a number")


def _require_object(value: Any, name: str) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is not an object")


def _require_list(value: Any, name: str) -> None:
    if not isinstance(value, list):
        raise TypeError(f"{name} is not a list")
