"""A comparison of methods as text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_ext.evaluation.method_comparison import FigureComparison
from nnunet_ext.evaluation.text import aligned, count, shown, signed, with_footnote


def method_lines(comparisons: Sequence[FigureComparison], summary: Mapping[str, Any]) -> list[str]:
    """A table for each figure, a row for each method.

    Args:
        comparisons: one for each figure.
        summary: numbers of `cases`, of `patients` and of cases that are `not_common`, and the `methods`.
    """
    lines = [
        f"{len(summary['methods'])} methods on {count(summary['cases'], 'case')} of "
        f"{count(summary['patients'], 'patient')}"
    ]
    if summary["not_common"]:
        lines.append(f"Left out: {count(summary['not_common'], 'case')} that not every method has")
    for found in comparisons:
        lines += ["", *figure_lines(found)]
    return with_footnote(lines, "too few runs, cases or patients, or neither direction is better")


def figure_lines(found: FigureComparison) -> list[str]:
    """The table of one figure."""
    first = next(iter(found.methods))
    digits = 2 if found.figure.endswith("_mm") else 4
    title = f"{found.figure} ({found.better} is better)" if found.better else found.figure
    header = [
        title,
        "runs",
        "mean",
        "± runs",
        "± cases",
        "rank",
        "interval",
        f"difference to {first}",
        "interval",
        "p",
    ]
    rows = []
    for name, numbers in found.methods.items():
        rank = numbers.rank
        row = [
            name,
            str(numbers.runs),
            *(shown(value, digits) for value in (numbers.mean, numbers.std_runs, numbers.std_cases)),
            shown(rank.mean, 2),
            f"{shown(rank.low, 2)} to {shown(rank.high, 2)}",
        ]
        difference = found.difference(name, first)
        row += (
            [
                signed(difference.mean_difference),
                f"{signed(difference.low)} to {signed(difference.high)}",
                shown(difference.p_value, 4),
            ]
            if difference
            else ["", "", ""]
        )
        rows.append(row)
    lines = aligned([header, *rows])
    if found.left_out:
        lines.append(f"over {count(found.cases, 'case')}; {found.left_out} left out, for which a method has no value")
    return [line.rstrip() for line in lines]
