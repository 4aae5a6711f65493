"""What the pages and README name exists: imports, modules, subcommands, their flags, and the targets of links."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnunet_ext.cli import build_parser

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
PROSE = {page: re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE) for page, text in TEXT.items()}
WORKED_EXAMPLES = "docs/extend/"  # name modules that their reader writes; tests/trainers/test_extend.py imports them
CURRENT = [page for page in TEXT if page != "CHANGELOG.md"]  # which may name what is gone
OF_NNUNET = {"train"}  # its flags are nnUNetv2_train's


def code_of(page: str, language: str = "") -> list[str]:
    """The code blocks of a page, continued lines joined."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", TEXT[page], flags=re.DOTALL | re.MULTILINE)
    return [re.sub(r"\\\n\s*", "", block) for block in blocks]


def imports_of(page: str) -> set[tuple[str, str]]:
    """Module and name of all that a page imports from this package."""
    return {
        (node.module, alias.name)
        for block in code_of(page, "python")
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nnunet_ext")
        for alias in node.names
    }


def anchors_of(page: str) -> set[str]:
    """The names by which GitHub links to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", PROSE[page], flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def subcommands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def flags_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """All flags of a subcommand, with those of what it can do."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from flags_of(inner)


PARSERS = subcommands()
FLAGS = {name: set(flags_of(parser)) for name, parser in PARSERS.items()}
ADDED = {
    path.replace("/", ".")
    for page in TEXT
    if page.startswith(WORKED_EXAMPLES)
    for path in re.findall(r"^# (nnunet_ext/[\w/]+)\.py$", TEXT[page], flags=re.MULTILINE)
}
IMPORTS = [(page, *found) for page in TEXT for found in sorted(imports_of(page)) if found[0] not in ADDED]


@pytest.mark.parametrize(("page", "module", "name"), IMPORTS)
def test_what_a_page_imports_is_there(page, module, name):
    found = importlib.import_module(module)
    assert hasattr(found, name) or importlib.import_module(f"{module}.{name}"), page


@pytest.mark.parametrize("page", CURRENT)
def test_modules_and_functions_that_a_page_names_are_there(page):
    for dotted in set(re.findall(r"`(nnunet_ext(?:\.\w+)+)", PROSE[page])):
        module = dotted
        while (
            not (ROOT / module.replace(".", "/")).is_dir() and not (ROOT / f"{module.replace('.', '/')}.py").is_file()
        ):
            module = module.rpartition(".")[0]
        found = importlib.import_module(module)
        for attribute in dotted.removeprefix(module).split(".")[1:]:
            found = getattr(found, attribute)


@pytest.mark.parametrize("page", CURRENT)
def test_commands_on_a_page_have_their_flags(page):
    code = "\n".join(code_of(page) + code_of(page, "bash"))
    calls = re.findall(r"^\$? ?nnunet_ext ([a-z][a-z-]*)([^\n#|]*)", code, flags=re.MULTILINE)
    calls += re.findall(r"`nnunet_ext ([a-z][a-z-]*)([^`]*)`", PROSE[page])
    for command, rest in calls:
        assert command in PARSERS, f"{page}: nnunet_ext {command}"
        flags = set(re.findall(r"(?<!\S)(--?[a-zA-Z][\w-]*)", rest))
        assert command in OF_NNUNET or flags <= FLAGS[command], f"{page}: nnunet_ext {command}{rest}"


@pytest.mark.parametrize("page", TEXT)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", PROSE[page]):
        file, _, anchor = link.partition("#")
        if file.startswith("http"):
            continue
        target = ((ROOT / page).parent / file).resolve() if file else ROOT / page
        assert target.exists(), f"{page}: {link}"
        name = target.relative_to(ROOT).as_posix()
        assert not anchor or name not in TEXT or anchor in anchors_of(name), f"{page}: {link}"


def words_of(page: str) -> int:
    """The words of a page as `wc -w` counts them."""
    return len(TEXT[page].split())


def test_the_documentation_stays_short():
    """A method may add its own page; everything else is one fact in one place."""
    pages = [page for page in TEXT if page.startswith("docs/") or page == "README.md"]
    of_methods = [page for page in pages if page.startswith("docs/methods/")]
    assert sum(words_of(page) for page in pages if page not in of_methods) <= 11_300
    assert words_of("README.md") <= 900
    assert not {page: words_of(page) for page in of_methods if words_of(page) > 800}
