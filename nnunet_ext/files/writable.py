"""Whether a result can be written, asked before the work that leads to it."""

from __future__ import annotations

import tempfile
from pathlib import Path


def require_writable(file: Path, remedy: str = "Give another file with -o.") -> None:
    """Refuses a file that cannot be written later; makes its folder if that is missing.

    Args:
        file: to be written at the end of the work.
        remedy: what to do, as a sentence.

    Raises:
        OSError: of the kind that the system gives, if the folder cannot be made or takes no file.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(
            f"The result must be written into {file.parent}; that is not possible: {reason}. {remedy}"
        ) from error
