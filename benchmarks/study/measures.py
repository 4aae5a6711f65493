"""What a result keeps of a test set: the figures that `nnunet_ext evaluate` found, rounded."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_ext.evaluation.runs import read_run

CASE_FIGURES = ("mean_dice", "ece", "ace", "brier", "nll", "end_slice_dice_paper", "end_slice_dice_strict")
STRUCTURE_FIGURES = ("hd95_mm", "nsd")
DETECTION = ("aurc", "failure_auroc", "spearman")  # of each confidence
UNCERTAINTY = "foreground_entropy"  # of each case, for the curves of risk over coverage


def judged(predictions: Path, seconds: float) -> dict[str, Any]:
    """What `nnunet_ext evaluate` found: figures of each case, and those of the whole set."""
    found = json.loads((predictions / "summary.json").read_text(encoding="utf-8"))["nnunet_ext"]
    run = read_run(predictions)
    with (predictions / "cases.csv").open(encoding="utf-8", newline="") as file:
        uncertainties = {row["case"]: float(row.get(UNCERTAINTY) or "nan") for row in csv.DictReader(file)}
    structures = {name: [f"{structure} {name}" for structure in found["structures"]] for name in STRUCTURE_FIGURES}
    cases = {
        case: [
            *(rounded(run.figures.get(name, {}).get(case)) for name in CASE_FIGURES),
            *(mean_of([rounded(run.figures[column][case]) for column in columns]) for columns in structures.values()),
            rounded(uncertainties[case]),
        ]
        for case in run.figures[CASE_FIGURES[0]]
    }
    detection = {
        name: {figure: rounded(values.get(figure)) for figure in DETECTION}
        for name, values in found["failure_detection"].items()
    }
    bins = found["reliability"] or {}  # none of regions
    return {
        "columns": [*CASE_FIGURES, *STRUCTURE_FIGURES, UNCERTAINTY],
        "cases": cases,
        "pooled_dice": {name: rounded(value) for name, value in found["pooled_dice"].items()},
        "end_coefficient": found["end_coefficient"],
        "failure_detection": detection,
        "verdicts": found["verdicts"],
        "reliability": {name: [rounded(value) for value in column] for name, column in bins.items()},
        "cpu_s_per_case": round(seconds / found["cases"], 2),
    }


def rounded(value: float | None) -> float | None:
    """To four significant digits, so that results stay small."""
    return None if value is None or value != value else float(f"{value:.4g}")


def mean_of(values: Sequence[float | None]) -> float | None:
    """Of those that are there."""
    there = [value for value in values if value is not None]
    return rounded(sum(there) / len(there)) if there else None
