"""The cases to open first, as a table of text."""

from __future__ import annotations

from collections.abc import Callable

from nnunet_ext.report.data import ReportCase, ReportData
from nnunet_ext.report.numbers import NO_ESTIMATE, column_words, fixed

SHOWN_CASES = 10
MEASURES = ("pairwise_dice", "foreground_entropy", "mean_entropy")


def first_case_lines(data: ReportData, shown: int = SHOWN_CASES) -> list[str]:
    """A heading, one line per case in the order of the page, and how many are left out.

    A column is there if a case has something in it.

    Args:
        data: of the page.
        shown: how many cases at most.
    """
    cases = data.cases[:shown]
    columns = [(heading, [cell(case) for case in cases]) for heading, cell in cells_of(data).items()]
    filled = [(heading, cells) for heading, cells in columns if any(cells)]
    widths = [max(map(len, (heading, *cells))) for heading, cells in filled]
    rows = zip(*([heading, *cells] for heading, cells in filled), strict=True)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    left = len(data.cases) - len(cases)
    return [*lines, f"and {left} more in cases.csv"] if left else lines


def cells_of(data: ReportData) -> dict[str, Callable[[ReportCase], str]]:
    """Heading of each column to what it says of a case; empty text where that is not known."""

    def measure(column: str) -> Callable[[ReportCase], str]:
        return lambda case: fixed(case.number(column)) if case.row.get(column) else ""

    def predicted_dice(case: ReportCase) -> str:
        return measure("predicted_dice")(case) or NO_ESTIMATE

    return {
        "open first": lambda case: case.name,
        "verdict": lambda case: case.verdict,
        **({"predicted Dice": predicted_dice} if data.calibrated else {}),
        **{column_words(column): measure(column) for column in MEASURES},
        "Dice": lambda case: fixed(case.dice) if case.evaluation else "",
        "flags": lambda case: " ".join(case.flags),
    }
