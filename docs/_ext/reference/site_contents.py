"""The front page of the site, made from docs/README.md, the front page on GitHub."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2]
CAPTION = re.compile(r"^\*\*(.+)\*\*$")
ENTRY = re.compile(r"^- \[([^\]]+)\]\(([^)]+)\.md\)")
BESIDE = "../SECURITY"  # lies beside docs/; security.md includes it


def front_page() -> str:
    """The list of pages without its title, followed by the same pages as navigation."""
    text = (DOCS / "README.md").read_text(encoding="utf-8").replace(BESIDE, "security")
    _title, _, listed = text.partition("\n")
    return "\n\n".join([listed, *map(toctree, sections_of(text))])


def sections_of(text: str) -> list[tuple[str, list[str]]]:
    """Caption and pages of each list."""
    sections: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if caption := CAPTION.match(line):
            sections.append((caption[1], []))
        elif entry := ENTRY.match(line):
            sections[-1][1].append(f"{entry[1]} <{entry[2]}>")
    return sections


def toctree(section: tuple[str, list[str]]) -> str:
    """Navigation of one list."""
    caption, pages = section
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"])


def pages_below(page: str) -> str:
    """Navigation of the pages in a folder that has the name of a page; "" if there is none."""
    return f"\n\n```{{toctree}}\n:hidden:\n:glob:\n\n{page}/*\n```\n" if (DOCS / page).is_dir() else ""
