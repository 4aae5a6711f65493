"""Where a method fails: by structure, by size, by centre or scanner, and in which cases."""

from __future__ import annotations

import csv
import io
import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from math import isnan, nan
from pathlib import Path
from statistics import fmean
from typing import TypedDict

from nnunet_ext.evaluation.results import CaseEvaluation

UNKNOWN = "unknown"
SIZES = ("small", "medium", "large")  # thirds, by the volume of the truth
EMPTY = "empty"  # no truth


class ErrorRow(TypedDict):
    """One structure of one case: its Dice, NaN if there is none, and its wrong voxels, see `error_parts`."""

    case: str
    structure: str
    dice: float
    true_volume_ml: float
    missed_voxels: int
    spurious_voxels: int
    boundary_voxels: int


class ErrorGroup(TypedDict):
    """Several rows together.

    `mean_dice` is over the rows that have a Dice, NaN if none has; `without_dice` says how many have none. The shares
    are fractions of all wrong voxels, so large structures weigh more; NaN if no voxel is wrong. The volumes
    are those of the truth, the smallest and the largest among the rows.
    """

    n: int
    smallest_ml: float
    largest_ml: float
    without_dice: int
    mean_dice: float
    wrong_voxels: int
    missed_share: float
    spurious_share: float
    boundary_share: float


class CaseDice(TypedDict):
    """A case and its mean Dice, NaN if it has none."""

    case: str
    mean_dice: float


class ErrorAnalysis(TypedDict):
    """What `error_analysis` returns: groups by their names, and the worst cases, the worst first."""

    groups: dict[str, ErrorGroup]
    worst_cases: list[CaseDice]


def error_analysis(
    cases: Sequence[CaseEvaluation], columns: Mapping[str, Mapping[str, str]], *, worst: int
) -> ErrorAnalysis:
    """Groups of errors and the worst cases, in plain dicts and lists.

    Args:
        cases: evaluated cases.
        columns: result of `read_columns`; may be empty.
        worst: number of worst cases to list.

    Returns:
        Groups: "liver" for all rows of a structure, "liver, small" for a third of them, "centre: A" for the cases
        that have A in a column.

    Raises:
        ValueError: if `worst` is negative.
    """
    rows = error_rows(cases)
    groups = {}
    tertiles = by_size_tertile(rows)
    for structure, group in by_structure(rows).items():
        groups[structure] = group
        groups |= {f"{structure}, {size}": part for size, part in tertiles[structure].items()}
    for column, values in columns.items():
        groups |= {f"{column}: {value}": group for value, group in by_column(rows, values).items()}
    mean_dice = {case.case: case.figures["mean_dice"] for case in cases}
    return {"groups": groups, "worst_cases": worst_cases(mean_dice, worst)}


def error_rows(cases: Iterable[CaseEvaluation]) -> list[ErrorRow]:
    """A row for every structure of every case."""
    return [
        {
            "case": case.case,
            "structure": structure,
            "dice": figures["dice"],
            "true_volume_ml": figures["true_volume_ml"],
            "missed_voxels": int(figures["missed_voxels"]),
            "spurious_voxels": int(figures["spurious_voxels"]),
            "boundary_voxels": int(figures["boundary_voxels"]),
        }
        for case in cases
        for structure, figures in case.structures.items()
    ]


def by_structure(rows: Iterable[ErrorRow]) -> dict[str, ErrorGroup]:
    """The rows of each structure, in the order of the structures."""
    return {structure: summary(members) for structure, members in _rows_of_structures(rows).items()}


def by_size_tertile(rows: Iterable[ErrorRow]) -> dict[str, dict[str, ErrorGroup]]:
    """The rows of each structure by the volume of its truth.

    A structure's rows in ascending order are cut into thirds; rows of equal volume stay together, in the third of the
    first of them. Rows whose truth is empty are not part of the thirds.

    Returns:
        Structure to "small", "medium", "large" and "empty", as far as there are such rows.
    """
    result = {}
    for structure, members in _rows_of_structures(rows).items():
        volumes = sorted(row["true_volume_ml"] for row in members if row["true_volume_ml"] > 0)
        groups: dict[str, list[ErrorRow]] = {size: [] for size in (*SIZES, EMPTY)}
        for row in members:
            volume = row["true_volume_ml"]
            if volume > 0:
                # by integer ranks: the rounding of a quantile could put a row on its wrong side
                groups[SIZES[len(SIZES) * bisect_left(volumes, volume) // len(volumes)]].append(row)
            else:
                groups[EMPTY].append(row)
        result[structure] = {size: summary(group) for size, group in groups.items() if group}
    return result


def by_column(rows: Iterable[ErrorRow], values: Mapping[str, str]) -> dict[str, ErrorGroup]:
    """The rows by a property of their cases, such as the centre or the scanner.

    Args:
        rows: of all structures, or of one.
        values: case to its value, a column of `read_columns`. Cases without a value are "unknown".

    Returns:
        Value to its rows together, by name, "unknown" last.
    """
    groups: dict[str, list[ErrorRow]] = {}
    for row in rows:
        groups.setdefault(values.get(row["case"], UNKNOWN), []).append(row)
    return {value: summary(groups[value]) for value in sorted(groups, key=lambda value: (value == UNKNOWN, value))}


def worst_cases(mean_dice: Mapping[str, float], k: int) -> list[CaseDice]:
    """The k cases with the lowest Dice, the lowest first; fewer if there are fewer.

    Args:
        mean_dice: case to its mean Dice; those that are NaN come last. Equal ones are in the order of their names.
        k: at least 0.

    Raises:
        ValueError: if k is negative.
    """
    if k < 0:
        raise ValueError(f"The number of worst cases must be at least 0; found {k}.")
    ranked = sorted(mean_dice.items(), key=lambda item: (isnan(item[1]), 0.0 if isnan(item[1]) else item[1], item[0]))
    return [{"case": case, "mean_dice": dice} for case, dice in ranked[:k]]


def summary(rows: Sequence[ErrorRow]) -> ErrorGroup:
    """Mean Dice and parts of the error over one or more rows; see `ErrorGroup`."""
    volumes = [row["true_volume_ml"] for row in rows]
    values = [row["dice"] for row in rows if not isnan(row["dice"])]
    missed = sum(row["missed_voxels"] for row in rows)
    spurious = sum(row["spurious_voxels"] for row in rows)
    boundary = sum(row["boundary_voxels"] for row in rows)
    wrong = missed + spurious + boundary
    return {
        "n": len(rows),
        "smallest_ml": min(volumes),
        "largest_ml": max(volumes),
        "without_dice": len(rows) - len(values),
        "mean_dice": fmean(values) if values else nan,
        "wrong_voxels": wrong,
        "missed_share": missed / wrong if wrong else nan,
        "spurious_share": spurious / wrong if wrong else nan,
        "boundary_share": boundary / wrong if wrong else nan,
    }


def read_columns(path: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    """Reads what a table (CSV, with commas, UTF-8) says about cases.

    Args:
        path: the first line names the columns; one is `case`. Any others are taken as text.

    Returns:
        Each column but `case`: case to the text of its cell, without spaces around it. Empty cells are left out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not UTF-8, has no column `case` or a column name twice, or if a row names no case, a case
            of an earlier row, or has more cells than there are columns.
    """
    # utf-8-sig: a spreadsheet program may have put a byte order mark first
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"A table of cases must be UTF-8; {path} is not: {error}. Save it as CSV UTF-8.") from None
    lines = csv.reader(io.StringIO(text))
    columns = [name.strip() for name in next(lines, [])]
    if "case" not in columns or len(set(columns)) < len(columns):
        raise ValueError(
            f"A table of cases must have a column 'case' and each column once, separated by commas; {path} has the "
            f"columns {columns}. Correct its first line."
        )
    result: dict[str, dict[str, str]] = {column: {} for column in columns if column != "case"}
    seen = set()
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue  # an empty line
        if len(cells) > len(columns):
            raise ValueError(
                f"A row must have one cell per column, {len(columns)}; line {lines.line_num} of {path} has "
                f"{len(cells)}. Put text that holds a comma in quotes."
            )
        row = {column: cell.strip() for column, cell in zip(columns, cells, strict=False)}
        case = row.pop("case", "")
        if not case or case in seen:
            found = f'"{case}" again' if case else "none"
            raise ValueError(
                f"Each row must name one case, and each case once; line {lines.line_num} of {path} names {found}. "
                f"Correct it."
            )
        seen.add(case)
        for column, cell in row.items():
            if cell:
                result[column][case] = cell
    return result


def _rows_of_structures(rows: Iterable[ErrorRow]) -> dict[str, list[ErrorRow]]:
    groups: dict[str, list[ErrorRow]] = {}
    for row in rows:
        groups.setdefault(row["structure"], []).append(row)
    return groups
