"""Tables, and plain text of the program as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# Words of the program that are set as code: flags, files, names with an underscore or in angle brackets.
CODE = re.compile(
    r"(?<![\w`])("
    r"--?[a-zA-Z][\w-]*"  # a flag
    r"|'[^' ]*[*_\[:/][^']*'"  # a pattern in quotes
    r"|[\w<>*/]+\.(?:json|csv|pth|html|npz|pkl|png)\b"  # a file
    r"|\w+_\w*(?:<\w+>)*(?:\*)?"  # a name
    r"|(?:\w*<\w+>\w*)+"  # a word with a number in it
    r"|[\w-]*:[A-Z](?::[A-Z])?\b"  # :N, mc-dropout:N
    r")"
)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; a bar within a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def code(word: str) -> str:
    """A word as code."""
    return f"`{word}`"


def as_markdown(text: str) -> str:
    """Plain text of the program, such as a help text: its flags and names as code, all else escaped.

    What is in backquotes already stays as it is.
    """
    pieces = re.split(r"(`[^`]+`)", text)
    return "".join(piece if piece.startswith("`") else _plain_as_markdown(piece) for piece in pieces)


def _plain_as_markdown(text: str) -> str:
    pieces = CODE.split(text)  # every second one is code
    return "".join(
        code(piece.strip("'")) if position % 2 else re.sub(r"([\\*_<>\[\]$])", r"\\\1", piece)
        for position, piece in enumerate(pieces)
    )
