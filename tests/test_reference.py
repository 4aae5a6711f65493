"""The generated reference says what the package does: every flag, part, column and map is in it.

`reference` lies in docs/_ext; the site calls the same functions.
"""

from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path

import pytest
from reference import commands, docstrings, markdown, metrics, outputs, site_contents, trainers
from reference.generated import GENERATED

from nnunet_ext.cli.command import EXIT_STATUSES
from nnunet_ext.evaluation.case_columns import CASE_COLUMNS
from nnunet_ext.evaluation.structure_metrics import STRUCTURE_METRICS
from nnunet_ext.prediction_folder.contents import COLUMNS, FLAGS
from nnunet_ext.trainers.part import Claim
from nnunet_ext.trainers.parts import PARTS

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md")}
BLOCKS = [block.split() for text in PAGES.values() for block in re.findall(r"^```\{generated\} (.+)$", text, re.M)]
PARSERS = commands.subparsers()


def rows_of(table: str) -> list[list[str]]:
    """The cells of a table without its header."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def first_cells(table: str) -> list[str]:
    return [row[0].strip("`") for row in rows_of(table)]


# --- pages ---


@pytest.mark.parametrize("block", BLOCKS, ids=" ".join)
def test_what_a_page_calls_for_is_generated(block):
    name, *words = block
    assert GENERATED[name](*words).strip()


def test_all_that_is_generated_is_on_a_page():
    assert {name for name, *_ in BLOCKS} | {"front-page"} == set(GENERATED)


@pytest.mark.parametrize("command", PARSERS)
def test_every_command_has_a_section(command):
    assert f"\n## {command}\n\n```{{generated}} command {command}\n" in PAGES["commands"]


@pytest.mark.parametrize(
    "dotted", re.findall(r"^\.\. auto(?:function|class|module):: (\S+)", "".join(PAGES.values()), re.M)
)
def test_what_the_python_pages_document_is_there(dotted):
    module, _, name = dotted.rpartition(".")
    assert hasattr(importlib.import_module(module), name) or importlib.import_module(dotted)


# --- commands ---


@pytest.mark.parametrize("command", PARSERS)
def test_the_section_of_a_command_has_every_flag_with_its_help(command):
    section = commands.command_section(command)
    flags = {cell for row in rows_of(section) for cell in re.findall(r"`([^` ]+)[^`]*`", row[0])}
    for parser in (PARSERS[command], *commands.actions_of(PARSERS[command]).values()):
        for action in parser._actions:
            if not isinstance(action, argparse._HelpAction):
                spellings = action.option_strings or [commands.metavar(action).split()[0]]
                assert set(spellings) <= flags
                assert action.help, f"{command} {spellings[0]} has no help"


def test_the_rows_of_flags():
    parser = argparse.ArgumentParser()
    parser.add_argument("FOLDER", help="images, named CASE_0000<ending>")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="a file")
    parser.add_argument("--shape", choices=("round", "square"), default="round", help="of the box (default: round)")
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 2], metavar="N", help="in mm")
    parser.add_argument("--rule", help="how; see --shape (default: as stock, or none)")
    parser.add_argument("--quiet", action="store_true", help="say less")
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    assert rows_of(commands.flag_table(actions)) == [
        ["`FOLDER`", "required", "images, named `CASE_0000<ending>`"],
        ["`-o FILE`, `--output`", "required", "a file"],
        ["`--shape round\\|square`", "`round`", "of the box"],
        ["`--sizes N [N ...]`", "`1` `2`", "in mm"],
        ["`--rule RULE`", "as stock, or none", "how; see `--shape`"],
        ["`--quiet`", "off", "say less"],
    ]


def test_every_exit_status_is_explained():
    assert [int(cell) for cell in first_cells(commands.exit_statuses())[: len(EXIT_STATUSES)]] == list(EXIT_STATUSES)


# --- trainers ---


def test_every_part_that_can_be_trained_with_is_in_the_table():
    assert sorted(first_cells(trainers.parts())) == sorted(part.spelling for part in PARTS if not part.internal)


def test_what_cannot_be_combined_stands_in_one_row():
    row = next(row for row in rows_of(trainers.claims()) if row[0] == Claim.LEARNING_RATE.value)
    assert row[1] == "`LoRA`, `LoRA<r>`, `Finetune`, `Finetune<n>`, `Cyclical`, `Cyclical<M>`, `SWA`, `RMSprop`"
    assert "`CosAnneal`" in row[2]


def test_what_a_part_needs_and_changes():
    rows = rows_of(trainers.conditions())
    assert next(row for row in rows if row[0].startswith("labels"))[1] == "`PaperMixture`"
    assert ["`FeatureL2`", "`DSD`"] in rows


# --- figures and outputs ---


def test_every_column_of_an_evaluation_is_in_its_table():
    assert first_cells(metrics.structure_columns()) == [metric.column for metric in STRUCTURE_METRICS]
    assert first_cells(metrics.case_columns()) == [row.column for row in CASE_COLUMNS]


@pytest.mark.parametrize("metric", STRUCTURE_METRICS, ids=lambda metric: metric.column)
def test_a_metric_says_what_it_is_and_can_be(metric):
    assert metric.values
    assert metric.meaning


def test_the_good_end_and_an_absent_structure():
    dice, *_ = rows_of(metrics.structure_columns())
    assert dice[:3] == ["`dice`", "↑", "0 to 1"]
    assert ["`hd95_mm`", "not defined", "0"] in rows_of(metrics.absent_structures())


def test_the_table_of_cases():
    found = outputs.case_table()
    assert [cell.removesuffix("` †") for cell in first_cells(found)] == [column.name for column in COLUMNS]
    assert first_cells(outputs.case_flags()) == list(FLAGS)
    assert [row[0] for row in rows_of(found) if row[0].endswith("†")] == [
        "`judged_confidence` †", "`predicted_dice` †", "`predicted_dice_low` †", "`predicted_dice_high` †",
        "`verdict` †", "`verdict_reason` †",
    ]  # fmt: skip


# --- text ---


def test_attributes_are_read_off_a_docstring():
    class Documented:
        """A class.

        Attributes:
            size: of the box.
            rule: how it is filled; a text that
                goes on in the next line.

        Raises:
            ValueError: if it is empty.
        """

    assert docstrings.attributes_of(Documented) == {
        "size": "of the box.",
        "rule": "how it is filled; a text that goes on in the next line.",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stock's way to say --members FILE", "stock's way to say `--members` FILE"),
        ("dataset.json (in nnUNet_raw)", "`dataset.json` (in `nnUNet_raw`)"),
        ("with :N the latest N", "with `:N` the latest N"),
        ("a * b [c] < d", r"a \* b \[c\] \< d"),
        ("already `a_b`", "already `a_b`"),
        ("half-precision autocast", "half-precision autocast"),
    ],
)
def test_plain_text_as_markdown(text, expected):
    assert markdown.as_markdown(text) == expected


def test_a_bar_in_a_cell_does_not_end_it():
    assert markdown.table(["a"], [["x|y"]]).splitlines()[-1] == r"| x\|y |"


def test_the_navigation_has_the_lists_of_the_front_page():
    text = "# Title\n\n**Begin**\n\n- [One](one.md): first.\n\n**More**\n\n- [Two](a/two.md): second.\n"
    assert site_contents.sections_of(text) == [("Begin", ["One <one>"]), ("More", ["Two <a/two>"])]
    assert (
        site_contents.toctree(("Begin", ["One <one>"])) == "```{toctree}\n:hidden:\n:caption: Begin\n\nOne <one>\n```"
    )
