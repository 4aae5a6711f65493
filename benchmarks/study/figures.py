"""Every figure of a study's results, and the file that holds all of them: docs/results/PRESET.csv."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from .measures import CASE_FIGURES, DETECTION, STRUCTURE_FIGURES, UNCERTAINTY
from .results_read import MethodResults, compared
from .settings import ImageSet, Study

CONFIDENCES = {"foreground_entropy": "entropy, foreground", "mean_entropy": "entropy, all voxels",
               "pairwise_dice": "members' Dice", "mutual_information": "mutual information"}  # fmt: skip
COMPARED = ("mean_dice", "ece")
Figure = Callable[[ImageSet, MethodResults], float]


def mean(column: str) -> Figure:
    """The mean of a figure of the cases; NaN if none has it."""
    return lambda test, results: results.mean(test, column)


def of_set(*keys: str) -> Figure:
    """A figure of the whole set; NaN where it is missing."""
    return lambda test, results: results.of_set(test, *keys)


def pooled_dice(test: ImageSet, results: MethodResults) -> float:
    """Mean over the structures of the Dice of all cases' voxels together."""
    structures = results.results[0]["tests"][test.name]["pooled_dice"]
    return sum(results.of_set(test, "pooled_dice", name) for name in structures) / len(structures)


def verdicts(kind: str, given: Sequence[str] = ("accept", "review", "reject")) -> Figure:
    """How many "failures" or "good" cases of all seeds have one of these verdicts; NaN without verdicts."""

    def count(test: ImageSet, results: MethodResults) -> float:
        checks = [result["tests"][test.name].get("verdicts") for result in results.results]
        counts = [check[kind] for check in checks if check]
        return float(sum(each[verdict] for each in counts for verdict in given)) if counts else float("nan")

    return count


FIGURES: dict[str, Figure] = {
    **{name: mean(name) for name in (*CASE_FIGURES, *STRUCTURE_FIGURES, UNCERTAINTY)},
    "pooled_dice": pooled_dice,
    **{f"end_coefficient_{kind}": of_set("end_coefficient", kind) for kind in ("paper", "strict")},
    **{f"{figure}_{name}": of_set("failure_detection", name, figure) for figure in DETECTION for name in CONFIDENCES},
    "failures": verdicts("failures"),
    "failures_not_accepted": verdicts("failures", ("review", "reject")),
    "good_cases": verdicts("good"),
    "good_cases_accepted": verdicts("good", ("accept",)),
    "training_cpu_s": lambda test, results: results.training_seconds(),
    "prediction_cpu_s_per_case": of_set("cpu_s_per_case"),
}


def write_figures(study: Study, found: dict[str, MethodResults], reference: str, file: Path) -> None:
    """Writes a row for each method and test set; empty where a figure is missing.

    Args:
        study: whose results they are.
        found: results by method, with the reference.
        reference: the method that all are compared with, at the same seeds, with 95 % intervals over patients.
        file: a CSV file.
    """
    differences = [f"{name}_difference{end}" for name in COMPARED for end in ("", "_low", "_high")]
    with file.open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(["group", "method", "seeds", "test", *FIGURES, *differences])
        for results in found.values():
            for test in study.preset.tests:
                values = [figure(test, results) for figure in FIGURES.values()]
                for name in COMPARED if results is not found[reference] else ():
                    pair = compared(study, test, name, results, found[reference])
                    values += [pair.mean_difference, pair.low, pair.high]
                values += [float("nan")] * (len(FIGURES) + len(differences) - len(values))
                method = results.method
                writer.writerow([method.group, method.name, len(results.results), test.name, *map(rounded, values)])


def rounded(value: float) -> str:
    """Four significant digits; empty for NaN."""
    return "" if value != value else f"{value:.4g}"
