"""Headers of text on which ITK's own parsers crash, hang or take all memory, found before ITK sees them.

A crash ends the whole process, with all the cases that follow. Found by fuzzing SimpleITK 2.5: MetaIO writes beyond
its arrays for a number of axes above 10 and takes the name of the voxels' file for a format of printf, and ITK looks
forever for the directions in numbers whose squares are infinite.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from nnunet_ext.input_checks.findings import UnreadableFile

MOST_HEADER_BYTES = 1 << 20
MOST_AXES = 10
LARGEST_NUMBER = 1e100  # its square is finite
_META_LINE = re.compile(rb"^[ \t]*(\w+)[ \t]*[=:][ \t]*([^\r\n]*)", re.MULTILINE)  # MetaIO takes both separators
_NRRD_AXES = re.compile(rb"^dimension[ \t]*:[ \t]*([^\r\n]*)", re.MULTILINE | re.IGNORECASE)
_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_LONG_EXPONENT = re.compile(rb"[eE]\+?0*[1-9]\d\d|\d{101}")  # only with one of these a number can be that large
_REPAIR = "Write the image again with the tool that made it, or convert it again from its source."


def require_harmless_header(path: Path) -> None:
    """Refuses a MetaImage or NRRD header that ITK must not see; other formats pass.

    Raises:
        UnreadableFile: The header is one of these.
        OSError: The file cannot be opened.
    """
    look = {".mha": _look_at_meta, ".mhd": _look_at_meta, ".nrrd": _look_at_nrrd}.get(path.suffix.lower())
    if look is not None:
        with path.open("rb") as file:
            look(file.read(MOST_HEADER_BYTES), path.stat().st_size)


def _look_at_meta(start: bytes, size: int) -> None:
    """Looks at every line, since MetaIO may take the first or the last of several of one name."""
    header, mark, rest = start.partition(b"ElementDataFile")
    data_file = mark + rest.partition(b"\n")[0]
    for key, value in _META_LINE.findall(header + data_file):
        name, words = key.decode(), value.decode("latin-1").strip()
        if name == "NDims" and not (words.isdecimal() and 1 <= int(words[:9]) <= MOST_AXES and len(words) < 9):
            raise _refused(f"{name} = {words}", f"1 to {MOST_AXES} axes")
        if name == "CompressedDataSize" and not (words.isdecimal() and len(words) < 19 and int(words) <= size):
            found = f'a compressed stream that is truncated, or a wrong "{name} = {words[:30]}" in the header'
            raise UnreadableFile(found, f"no more than the {size} bytes of the file", _REPAIR)
        if name == "ElementDataFile" and "%" in words:
            raise _refused(f"{name} = {words}", "LOCAL, or the name of one file")
    _require_numbers(header)


def _look_at_nrrd(start: bytes, size: int) -> None:
    header = re.split(rb"\n\r?\n", start, maxsplit=1)[0]
    for value in _NRRD_AXES.findall(header):
        words = value.decode("latin-1").strip()
        if not (words.isdecimal() and len(words) < 9 and 1 <= int(words) <= MOST_AXES):
            raise _refused(f"dimension: {words}", f"1 to {MOST_AXES} axes")
    _require_numbers(header)


def _require_numbers(header: bytes) -> None:
    if not _LONG_EXPONENT.search(header):
        return
    for number in _NUMBER.findall(header):
        if not math.fabs(float(number)) <= LARGEST_NUMBER:
            raise _refused(f"the number {number[:20].decode()}", f"numbers below {LARGEST_NUMBER:g}")


def _refused(found: str, expected: str) -> UnreadableFile:
    return UnreadableFile(f'"{found[:100]}" in the header', expected, _REPAIR)
