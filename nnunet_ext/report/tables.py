"""The tables of the page: texts of the cells, and the numbers that they are sorted by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_ext.evaluation.attention import URGENCY
from nnunet_ext.evaluation.confidences import DIRECTIONS
from nnunet_ext.evaluation.failure_table import failure_table
from nnunet_ext.evaluation.results import CaseEvaluation, FolderEvaluation
from nnunet_ext.report.data import ReportCase, ReportData
from nnunet_ext.report.numbers import NOT_DEFINED, column_words, fixed, interval, significant, with_spread

HIGHER, LOWER, SMALLER_SIZE = "higher", "lower", "closer to 0"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what is read.
        sort: what it is sorted by; empty comes last.
        detail: a second line in small letters.
        verdict: the word, if the cell is a verdict.
        is_text: whether it holds words that may be broken into lines.
    """

    text: str
    sort: str = ""
    detail: str = ""
    verdict: str = ""
    is_text: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose first cell of each row heads the row.

    Attributes:
        caption: above it.
        header: names of the columns.
        rows: as many cells each.
        hints: below the names of the columns, such as "lower is better"; empty without.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """How a figure is called, written and judged."""

    name: str
    better: str
    digits: int = 3

    def text(self, value: float) -> str:
        """As it stands in a cell."""
        return fixed(value, self.digits)

    def worst(self, values: np.ndarray) -> float:
        """The value furthest from what is wanted."""
        index = {HIGHER: values.argmin, LOWER: values.argmax, SMALLER_SIZE: np.abs(values).argmax}[self.better]()
        return float(values[index])


STRUCTURE_METRICS = {
    "dice": Metric("Dice", HIGHER),
    "nsd": Metric("NSD", HIGHER),
    "hd95_mm": Metric("HD95 (mm)", LOWER, 1),
    "hd_mm": Metric("HD (mm)", LOWER, 1),
    "volume_error_ml": Metric("volume error (ml)", SMALLER_SIZE, 1),
    "relative_volume_error": Metric("relative volume error", SMALLER_SIZE),
    "lesion_f1": Metric("lesion F1", HIGHER),
}
CASE_METRICS = {
    "mean_dice": Metric("mean Dice", HIGHER),
    "end_slice_dice_paper": Metric("Dice of end slices (as arXiv 2502.09269)", HIGHER),
    "end_slice_dice_strict": Metric("Dice of end slices (strict)", HIGHER),
}
CALIBRATION_METRICS = {
    "ece": Metric("ECE", LOWER, 4),
    "class_wise_ece": Metric("class-wise ECE", LOWER, 4),
    "ace": Metric("ACE", LOWER, 4),
    "brier": Metric("Brier score", LOWER, 4),
    "nll": Metric("negative log-likelihood (nats)", LOWER, 4),
}
MAP_METRICS = {
    "_error_auroc": Metric("error AUROC", HIGHER),
    "_error_ap": Metric("error average precision", HIGHER),
    "_qu_brats": Metric("QU-BraTS", HIGHER),
    "_qu_brats_gain": Metric("gain over an empty map", HIGHER),
}
FAILURE_METRICS = {
    "aurc": Metric("AURC", LOWER, 4),
    "e_aurc": Metric("E-AURC", LOWER, 4),
    "augrc": Metric("AUGRC", LOWER, 4),
    "failure_auroc": Metric("failure AUROC", HIGHER),
    "fpr_at_95_tpr": Metric("FPR at 95 % TPR", LOWER),
    "spearman": Metric("Spearman with risk", LOWER),
}


def case_table(data: ReportData) -> Table:
    """All cases, in the order of the page."""
    confidences = [
        column
        for column in DIRECTIONS
        if column != "predicted_dice" and any(math.isfinite(case.number(column)) for case in data.cases)
    ]
    has_prediction = data.calibrated or any(case.row.get("predicted_dice") for case in data.cases)
    has_dice = any(case.evaluation for case in data.cases)
    has_flags = any(case.flags for case in data.cases)
    header = [
        "case",
        *(["verdict"] if data.calibrated else []),
        *(["predicted Dice"] if has_prediction else []),
        *(["Dice"] if has_dice else []),
        *map(column_words, confidences),
        *(f"{name} (ml)" for name in data.structures),
        *(["flags"] if has_flags else []),
    ]

    def row(case: ReportCase) -> tuple[Cell, ...]:
        cells = [Cell(case.name, case.name)]
        if data.calibrated:
            rank = str(URGENCY.index(case.verdict)) if case.verdict in URGENCY else ""
            cells.append(Cell(case.verdict or NOT_DEFINED, rank, verdict=case.verdict))
        if has_prediction:
            predicted, low, high = (case.number(f"predicted_dice{end}") for end in ("", "_low", "_high"))
            is_judged_case = bool(case.verdict) or math.isfinite(
                predicted
            )  # a folder may hold uncalibrated rows, too
            cells.append(Cell(interval(predicted, low, high) if is_judged_case else NOT_DEFINED, sort_key(predicted)))
        if has_dice:
            cells.append(Cell(fixed(case.dice), sort_key(case.dice)))
        cells += [Cell(significant(case.number(name)), sort_key(case.number(name))) for name in confidences]
        for name in data.structures:
            volume = case.number(f"volume_ml_{name}")
            cells.append(Cell(with_spread(volume, case.number(f"volume_cv_{name}")), sort_key(volume)))
        if has_flags:
            words = ", ".join(flag.replace("_", " ") for flag in case.flags)
            cells.append(Cell(words, words, is_text=True))
        return tuple(cells)

    caption = "Volumes ± coefficient of variation over the members." if data.structures else ""
    return Table(caption, tuple(header), tuple(row(case) for case in data.cases))


def structure_table(evaluation: FolderEvaluation) -> Table:
    """One row per class or region; mean over the cases, median and worst."""
    structures = {
        name: [case.structures[name] for case in evaluation.cases if name in case.structures]
        for name in evaluation.structures
    }
    present = _present(STRUCTURE_METRICS, [figures for found in structures.values() for figures in found])
    rows = [
        (
            Cell(name),
            *(_summary(metric, [figures.get(key, math.nan) for figures in found]) for key, metric in present),
        )
        for name, found in structures.items()
    ]
    return _table("Per class: mean over the cases", "class", present, rows)


def summary_table(caption: str, metrics: Mapping[str, Metric], evaluation: FolderEvaluation) -> Table | None:
    """Figures of cases as a whole: a row a figure with mean, median and worst; None if no case has any."""
    present = _present(metrics, [case.figures for case in evaluation.cases])
    rows = []
    for key, metric in present:
        values = _finite(evaluation.column(key))
        rows.append(
            (
                Cell(metric.name, detail=f"{metric.better} is better"),
                Cell(metric.text(values.mean())),
                Cell(metric.text(float(np.median(values)))),
                Cell(metric.text(metric.worst(values))),
                Cell(f"{len(values)} of {len(evaluation.cases)}"),
            )
        )
    return Table(caption, ("metric", "mean", "median", "worst", "cases"), tuple(rows)) if rows else None


def map_table(evaluation: FolderEvaluation) -> Table | None:
    """One row per uncertainty map: how well it shows the errors; None if there is no map."""
    suffix = "_error_auroc"
    names = dict.fromkeys(
        key.removesuffix(suffix) for case in evaluation.cases for key in case.figures if key.endswith(suffix)
    )
    figures = [
        {end: case.figures.get(name + end, math.nan) for end in MAP_METRICS}
        for name in names
        for case in evaluation.cases
    ]
    present = _present(MAP_METRICS, figures)
    rows = [
        (Cell(column_words(name)), *(_summary(metric, evaluation.column(name + end)) for end, metric in present))
        for name in names
    ]
    return _table("Uncertainty maps: mean over the cases", "map", present, rows) if present else None


def detection_table(data: ReportData) -> Table | None:
    """A row a confidence column: how well it finds the bad cases; None where that is not defined."""
    judged = [case.evaluation for case in data.cases if case.evaluation and is_judged(case.evaluation)]
    found = failure_table(judged, [case.row for case in data.cases], failure_dice=data.failure_dice)
    rows = tuple(
        (
            Cell(column_words(column)),
            *(Cell(metric.text(figures.get(key, math.nan))) for key, metric in FAILURE_METRICS.items()),
        )
        for column, figures in found.items()
    )
    header = ("confidence", *(metric.name for metric in FAILURE_METRICS.values()))
    hints = ("", *(f"{metric.better} is better" for metric in FAILURE_METRICS.values()))
    caption = f"A failure is a case with a Dice below {data.failure_dice:g}; uncertainties are negated first."
    return Table(caption, header, rows, hints) if rows else None


def is_judged(evaluation: CaseEvaluation | None) -> bool:
    """Whether a case counts in failure detection: it was evaluated, and its mean Dice was worked out."""
    return evaluation is not None and "mean_dice" in evaluation.figures


def sort_key(value: float) -> str:
    """A number as JavaScript reads it; empty for NaN."""
    return repr(float(value)) if math.isfinite(value) else ""


def _table(caption: str, head: str, present: Sequence[tuple[str, Metric]], rows: Sequence[tuple[Cell, ...]]) -> Table:
    header = (head, *(metric.name for _, metric in present))
    return Table(caption, header, tuple(rows), ("", *(f"{metric.better} is better" for _, metric in present)))


def _summary(metric: Metric, values: Sequence[float]) -> Cell:
    finite = _finite(values)
    if not finite.size:
        return Cell(NOT_DEFINED)
    worst, median = metric.text(metric.worst(finite)), metric.text(float(np.median(finite)))
    left_out = f"\n{finite.size} of {len(values)} cases" if finite.size < len(values) else ""
    return Cell(metric.text(float(finite.mean())), detail=f"median {median}\nworst {worst}{left_out}")


def _present(metrics: Mapping[str, Metric], figures: Sequence[Mapping[str, float]]) -> list[tuple[str, Metric]]:
    """The metrics that are defined in at least one of the figures."""
    return [
        (key, metric)
        for key, metric in metrics.items()
        if any(math.isfinite(found.get(key, math.nan)) for found in figures)
    ]


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]
