"""The front page of the site, made from the front pages on GitHub: the beginning of README.md and docs/README.md."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2]
CAPTION = re.compile(r"^\*\*(.+)\*\*$")
ENTRY = re.compile(r"^- \[([^\]]+)\]\(([^)]+)\.md\)")
BESIDE = "../SECURITY"  # lies beside docs/; security.md includes it


def front_page() -> str:
    """What the package does, the list of pages, and the same pages as navigation."""
    text = (DOCS / "README.md").read_text(encoding="utf-8").replace(BESIDE, "security")
    listed = text.partition("\n")[2]  # below the title
    return "\n\n".join([introduction(), listed, *map(toctree, sections_of(text))])


def introduction() -> str:
    """README.md from its title to its first section."""
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    return text.partition("\n")[2].replace("](docs/", "](")


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
