"""The marks of reStructuredText, which GitHub and the site both show, tables from lines of CSV.

Pages written by hand are Markdown; those written by a program are not, since CSV needs no lines of bars.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

UNDERLINES = "=-~"


def heading(text: str, level: int) -> str:
    """A title (0), section (1) or subsection (2), with a capital."""
    return f"{text[0].upper()}{text[1:]}\n{UNDERLINES[level] * len(text)}"


def picture(file: str, shows: str) -> str:
    """A picture beside the page, and what one sees on it."""
    return f".. image:: {file}\n   :alt: {shows}"


def command(words: str) -> str:
    """A line to type."""
    return f".. code-block:: text\n\n   {words}"


def link(text: str, address: str) -> str:
    """A link to another site."""
    return f"`{text} <{address}>`__"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a line of CSV per row; rows may be shorter than the titles."""
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([titles, *rows])
    body = "\n".join(f"   {line}" for line in lines.getvalue().splitlines())
    return f".. csv-table::\n   :header-rows: 1\n\n{body}"
