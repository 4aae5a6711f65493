"""What the pages and README name exists: imports, subcommands and their long flags."""

from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path

import pytest

from nnunet_ext.cli import build_parser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
# files that a reader of docs/extend adds; tests/trainers/test_extend.py imports them
EXAMPLES = {
    path.replace("/", ".")
    for text in TEXT.values()
    for path in re.findall(r"^# (nnunet_ext/[\w/]+)\.py$", text, flags=re.MULTILINE)
}
IMPORTS = sorted(
    {
        (page, module, name.split(" as ")[0].strip())
        for page, text in TEXT.items()
        for module, names in re.findall(r"^from (nnunet_ext[\w.]*) import (.+)$", text, flags=re.MULTILINE)
        for name in re.sub(r"[()]|#.*", "", names).split(",")
        if name.strip() and module not in EXAMPLES
    }
)
OF_NNUNET = {"train"}  # its flags are nnUNetv2_train's


@pytest.mark.parametrize(("page", "module", "name"), IMPORTS)
def test_what_a_page_imports_is_there(page, module, name):
    found = importlib.import_module(module)
    assert hasattr(found, name), page


def subcommands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.mark.parametrize("page", TEXT)
def test_commands_in_code_blocks_have_their_flags(page):
    parsers = subcommands()
    for block in re.findall(r"```\n(.*?)```", TEXT[page], flags=re.DOTALL):
        for command, rest in re.findall(r"^\$? ?nnunet_ext ([a-z]+)([^\n#|]*)", block, flags=re.MULTILINE):
            if command in OF_NNUNET:
                continue
            assert command in parsers, f"{page}: nnunet_ext {command}"
            known = {flag for action in parsers[command]._actions for flag in action.option_strings}
            for flag in re.findall(r"(?<!\S)(--[\w-]+)", rest):
                assert flag in known, f"{page}: nnunet_ext {command} {flag}"
