"""What docstrings say about the attributes of a class."""

from __future__ import annotations

import inspect
import re


def attributes_of(documented: type) -> dict[str, str]:
    """Name to text of the section "Attributes" of a class's docstring, continued lines joined."""
    section = (inspect.getdoc(documented) or "").partition("Attributes:\n")[2]
    texts: dict[str, str] = {}
    for line in section.splitlines():
        found = re.fullmatch(r"    (\w+): (.*)", line)
        if found:
            texts[found[1]] = found[2]
        elif line.startswith(" " * 8):
            texts[next(reversed(texts))] += f" {line.strip()}"
        else:
            break  # the next section, or an empty line before it
    return texts
