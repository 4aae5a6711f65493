"""The files of a folder, without those that no person put there."""

from __future__ import annotations

from pathlib import Path

SIDE_FILE_PREFIX = "._"  # macOS keeps attributes in ._NAME where the disk or share cannot hold them


def visible_files(folder: Path, pattern: str = "*") -> list[Path]:
    """What lies in a folder, sorted, without names that begin with a dot.

    These are side files of macOS (`._NAME`), half-written files (`.partial-NAME`) and the like. They share the ending
    of the file that they belong to, so that a search by ending would find them.
    """
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
