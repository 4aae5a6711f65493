"""Reads evaluations that were written earlier: the figures of each case, run by run."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_ext.evaluation.summary import OWN_KEY
from nnunet_ext.options import END_VARIANTS

Values = Mapping[str, float]  # case to value; NaN where the case defines none

WORDS = ("case", "fold", "structure")  # columns that are not figures
DECISIVE = ("nsd_tolerance_mm", "absent", "end_stack", "end_threshold")  # settings that figures depend on


@dataclass(frozen=True)
class Run:
    """One evaluation.

    Attributes:
        folder: folder written by `evaluate`.
        figures: a column of `case_metrics.csv`, or structure and column of `metrics.csv` such as "LV dice", to the
            value of each case.
        settings: settings that the figures depend on.
    """

    folder: Path
    figures: Mapping[str, Values]
    settings: Mapping[str, Any]

    @property
    def cases(self) -> set[str]:
        """Names of the cases that were evaluated."""
        return {case for values in self.figures.values() for case in values}


def read_run(folder: Path) -> Run:
    """Reads what `nnunet_ext evaluate` wrote into a folder.

    The end coefficient is a share of cases: each case gets 1 or 0 in `end_coefficient_paper` and `_strict`, by the
    threshold that was set.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a table is malformed, or the summary is not from `nnunet_ext evaluate`.
    """
    figures: dict[str, dict[str, float]] = {}
    for name in ("case_metrics.csv", "metrics.csv"):
        for row in read_rows(folder / name):
            prefix = f"{row['structure']} " if "structure" in row else ""
            for column, text in row.items():
                if column not in WORDS:
                    figures.setdefault(prefix + column, {})[row["case"]] = cell_value(text, folder / name)
    settings = settings_of(folder / "summary.json")
    if "end_threshold" in settings:
        for variant in END_VARIANTS:
            if dice := figures.get(f"end_slice_dice_{variant}"):
                figures[f"end_coefficient_{variant}"] = {
                    case: math.nan if math.isnan(value) else float(value > settings["end_threshold"])
                    for case, value in dice.items()
                }
    return Run(folder, figures, settings)


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a table of `evaluate`.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it has no column `case`.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"nnunet_ext compare takes folders of nnunet_ext evaluate; {file} does not exist. Evaluate the "
            f"predictions first, with -o {file.parent}."
        )
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if rows and ("case" not in rows[0] or None in rows[0] or None in rows[0].values()):
        raise ValueError(
            f"A table of nnunet_ext evaluate must have a column case and one cell per column in each row; {file} has "
            f"the columns {', '.join(map(str, rows[0]))}. Evaluate again."
        )
    return rows


def cell_value(text: str, file: Path) -> float:
    """The value of a cell; NaN if it is empty.

    Raises:
        ValueError: if it is not a number.
    """
    try:
        return float(text) if text else math.nan
    except ValueError:
        raise ValueError(f'A figure must be a number or empty; {file} has "{text}". Evaluate again.') from None


def settings_of(file: Path) -> dict[str, Any]:
    """The settings that the figures depend on, from `summary.json`.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it was written by stock nnU-Net.
    """
    if not file.is_file():
        raise FileNotFoundError(f"An evaluation must have a summary.json; {file} does not exist. Evaluate again.")
    own = json.loads(file.read_text(encoding="utf-8")).get(OWN_KEY)
    if own is None:
        raise ValueError(
            f"nnunet_ext compare takes folders of nnunet_ext evaluate; {file} is stock nnU-Net's. Evaluate the "
            f"predictions and give the folder of the tables."
        )
    return {key: own.get("settings", {}).get(key) for key in DECISIVE}


def require_same_settings(runs: Sequence[Run]) -> None:
    """Refuses runs whose figures are not comparable.

    Raises:
        ValueError: with the setting and both values.
    """
    first = runs[0]
    for run in runs[1:]:
        for key, value in first.settings.items():
            if run.settings.get(key) != value:
                raise ValueError(
                    f"Runs must be evaluated with the same settings to be compared; {key} is {value} in "
                    f"{first.folder} and {run.settings.get(key)} in {run.folder}. Evaluate one of them again."
                )


def common_figures(runs: Iterable[Run]) -> list[str]:
    """The figures that every run has, in the order of the first."""
    first, *others = runs
    return [figure for figure in first.figures if all(figure in run.figures for run in others)]
