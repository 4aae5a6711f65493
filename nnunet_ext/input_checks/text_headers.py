"""The fields of the two image formats whose header is text: MetaImage (.mha) and NRRD (.nrrd)."""

from __future__ import annotations

from pathlib import Path

_LONGEST_LINE = 1 << 16


def meta_fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields of a MetaImage header as written, and the position of the first byte after it."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while "ElementDataFile" not in fields and (line := file.readline(_LONGEST_LINE)):
            key, _, value = line.decode("latin-1").partition("=")
            fields[key.strip()] = value.strip()
        return fields, file.tell()


def nrrd_fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields of an NRRD header, lower case, keys without spaces; and the position of the first byte after it."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_LINE).strip():  # an empty line ends the header
            key, _, value = line.decode("latin-1").partition(":")
            fields[key.strip().lower().replace(" ", "")] = value.strip().lower()
        return fields, file.tell()
