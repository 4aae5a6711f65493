"""Packages that one of this package's extras installs: imported where they are needed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


class ExtraMissingError(ValueError):
    """A package of an extra is not installed; the message says how to install it."""


def imported(package: str, *, extra: str, needed_by: str, otherwise: str = "") -> ModuleType:
    """Imports a package.

    Args:
        package: as it is imported.
        extra: that installs it.
        needed_by: a command or flag, for the message.
        otherwise: what else to do, for the message.

    Raises:
        ExtraMissingError: if it cannot be imported.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ExtraMissingError(
            f"{needed_by} needs the package {package}, which cannot be imported ({error}). Install it with "
            f"pip install 'nnunet-ext[{extra}]'{', or ' if otherwise else ''}{otherwise}."
        ) from error
