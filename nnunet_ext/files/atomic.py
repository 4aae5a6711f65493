"""Files that are either complete or absent, however the process ends."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

PARTIAL_PREFIX = ".partial-"


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; on success the file written there is renamed to `path`.

    The temporary name is `.partial-NAME`: it keeps the file ending, by which image writers choose their format,
    and a rerun overwrites the file of a killed run. On an exception the temporary file is removed and `path` stays
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


def as_read_back(content: Any) -> Any:
    """The content as it is read from a file of JSON: tuples are lists, dataclasses mappings, and paths text."""
    return json.loads(json.dumps(content, default=_plain))


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def says(file: Path, content: Any) -> bool:
    """Whether a file of JSON is there and holds this content."""
    return file.is_file() and json.loads(file.read_text(encoding="utf-8")) == as_read_back(content)


def without_nan(content: Any) -> Any:
    """The content with null in place of NaN and infinity, which JSON does not have."""
    if isinstance(content, Mapping):
        return {str(key): without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [without_nan(value) for value in content]
    if isinstance(content, (float, np.floating)):
        return float(content) if math.isfinite(content) else None
    return content.item() if isinstance(content, np.generic) else content
