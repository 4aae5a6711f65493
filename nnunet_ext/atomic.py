"""Files that are either whole or absent under their name, however the process ends."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL_PREFIX = ".partial-"


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path in the folder of `path`; on success the file written there takes the name `path`.

    The temporary name is `.partial-NAME`: it keeps the file ending, by which image writers choose their format,
    and a rerun overwrites what a killed run left. On an exception the temporary file is removed and `path` stays
    as it was.
    """
    final = Path(path)
    temporary = final.with_name(PARTIAL_PREFIX + final.name)
    try:
        yield temporary
        with temporary.open("rb+") as file:  # data first, then the name: a power cut must not swap the two
            os.fsync(file.fileno())
        temporary.replace(final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(content: Any, path: str | os.PathLike[str]) -> None:
    """Writes `content` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
