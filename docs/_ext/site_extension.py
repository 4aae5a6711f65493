"""What the site needs of Sphinx beyond its own extensions.

`{generated} NAME` stands on a page where a part of the reference goes: Markdown that a function of `reference` makes
from the package.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from docutils import nodes
from reference import site_contents
from reference.generated import GENERATED
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Generated(SphinxDirective):
    """`{generated} NAME [WORD ...]`: what the function of this name returns for these words."""

    required_arguments = 1
    optional_arguments = 9

    def run(self) -> list[nodes.Node]:
        """The nodes of the generated Markdown."""
        name, *words = self.arguments
        if name not in GENERATED:
            raise self.error(f"Nothing is generated as {name!r}; there are {', '.join(GENERATED)}.")
        return [nodes.container("", *self.parse_text_to_nodes(GENERATED[name](*words)), classes=["generated", name])]


def add_pages_below(app: Sphinx, page: str, source: list[str]) -> None:
    """Navigation from a page to those in the folder of its name, such as extend.md and extend/."""
    source[0] += site_contents.pages_below(page)


def read_docstring(app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text with single backquotes: what reStructuredText would read as markup is escaped."""
    lines[:] = returns_as_field(
        "".join(part if part.startswith("`") else escaped(part) for part in re.split(r"(`[^`]*`)", line))
        for line in lines
    )


def escaped(text: str) -> str:
    """Without emphasis, substitutions and references: `(C, *spatial)`, `|a - b|`, `n_`."""
    return re.sub(r"[*|]|(?<=\w)_(?!\w)", lambda found: f"\\{found[0]}", text)


def returns_as_field(lines: Iterable[str]) -> list[str]:
    """The section "Returns" as a field of its own, since napoleon takes what is before a colon for a type.

    Several arrays, "coverages: (K)", become a list.
    """
    result, inside = [], False
    for line in lines:
        if line == "Returns:":
            result, inside = [*result, ":returns:"], True
        elif inside and line and not line.startswith(" "):
            result, inside = [*result, line], False
        elif inside and re.match(r"    [a-z]+( [a-z]+)?: ", line):
            result += ["", f"    * {line.strip()}"]
        elif inside and line.startswith(" " * 8):
            result.append(line.removeprefix("  "))
        else:
            result.append(line)
    return result


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("generated", Generated)
    app.connect("source-read", add_pages_below)
    app.connect("autodoc-process-docstring", read_docstring, priority=400)  # before napoleon's
    return {"parallel_read_safe": True, "parallel_write_safe": True}
