"""An evaluation as files: `metrics.csv`, `case_metrics.csv` and `summary.json`.

A standard deviation over cases says how much cases differ; one over the means of folds says how much trainings do.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
from nnunetv2.evaluation.evaluate_predictions import label_or_region_to_key

from nnunet_ext.evaluation.case_metrics import nan_mean
from nnunet_ext.evaluation.overlap_counts import OverlapCounts
from nnunet_ext.evaluation.reliability import ReliabilityBins
from nnunet_ext.evaluation.results import CaseEvaluation, Figures, FolderEvaluation
from nnunet_ext.files.atomic import atomic_path, without_nan, write_json
from nnunet_ext.options import END_VARIANTS

NO_VOXELS = OverlapCounts(tp=0, fp=0, fn=0, tn=0)
OWN_KEY = "nnunet_ext"  # in summary.json, beside nnU-Net's keys
BINS_SHOWN = 20  # of a reliability diagram


def write_metrics_csv(evaluation: FolderEvaluation, path: Path) -> None:
    """One row per case and structure; an empty cell where a figure is not defined."""
    rows = [
        {**named(case), "structure": structure, **figures}
        for case in evaluation.cases
        for structure, figures in case.structures.items()
    ]
    write_table(rows, path)


def write_case_metrics_csv(evaluation: FolderEvaluation, path: Path) -> None:
    """One row per case with the figures of the case as a whole."""
    write_table([{**named(case), **case.figures} for case in evaluation.cases], path)


def named(case: CaseEvaluation) -> dict[str, str]:
    """The first cells of a row: the case, and its fold if there are folds."""
    return {"case": case.case, **({"fold": case.fold} if case.fold else {})}


def write_table(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """Rows as CSV, atomically; columns in the order in which they first appear."""
    text = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: cell(value) for column, value in row.items()} for row in rows)
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.getvalue().encode("utf-8"))


def cell(value: object) -> str:
    """A value in a table: 6 significant digits, an empty cell for NaN."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def write_summary(evaluation: FolderEvaluation, path: Path, own: Mapping[str, Any]) -> None:
    """`summary.json`: nnU-Net's keys in nnU-Net's form, then ours under "nnunet_ext".

    Args:
        evaluation: evaluation of the folder.
        path: path of the file.
        own: our part, `own_summary` and further entries.
    """
    write_json({**stock_summary(evaluation), OWN_KEY: without_nan(own)}, path)


def stock_summary(evaluation: FolderEvaluation) -> dict[str, Any]:
    """What `nnUNetv2_evaluate_folder` writes about the same cases."""
    metrics = [case.stock["metrics"] for case in evaluation.cases]
    means = {
        key: {name: stock_mean([entry[key][name] for entry in metrics]) for name in metrics[0][key]}
        for key in (metrics[0] if metrics else ())
    }
    names = next(iter(means.values()), {})
    return {
        "foreground_mean": {name: float(np.mean([mean[name] for mean in means.values()])) for name in names},
        "mean": {label_or_region_to_key(key): mean for key, mean in means.items()},
        "metric_per_case": [
            {
                **case.stock,
                "metrics": {label_or_region_to_key(key): values for key, values in case.stock["metrics"].items()},
            }
            for case in evaluation.cases
        ],
    }


def stock_mean(values: Sequence[float]) -> float:
    """NumPy's `nanmean`, as nnU-Net takes it, to the last bit, but without its warning if all are NaN."""
    defined = ~np.isnan(np.asarray(values, dtype=np.float64))
    return float(np.nanmean(values)) if defined.any() else math.nan


def own_summary(evaluation: FolderEvaluation, *, end_threshold: float = 0.8) -> dict[str, Any]:
    """Means of our figures, end coefficients and problems.

    Args:
        evaluation: evaluation of the folder.
        end_threshold: a case counts for the end coefficient if its Dice is above this.
    """
    return {
        "cases": len(evaluation.cases),
        "structures": {
            name: distribution([case.structures[name] for case in evaluation.cases]) for name in evaluation.structures
        },
        "pooled_dice": pooled_dice(evaluation),
        "absent": {
            name: sum(case.counts[name].absent for case in evaluation.cases if name in case.counts)
            for name in evaluation.structures
        },
        "case_figures": distribution([case.figures for case in evaluation.cases]),
        "end_coefficient": end_coefficients(evaluation, end_threshold),
        "reliability": reliability_columns(evaluation.reliability),
        "problems": evaluation.problems,
    }


def means_of(evaluation: FolderEvaluation, *, end_threshold: float) -> dict[str, Any]:
    """The means of `own_summary`, without spreads and counts."""
    own = own_summary(evaluation, end_threshold=end_threshold)
    return {
        "cases": own["cases"],
        "structures": {
            name: {figure: found["mean"] for figure, found in figures.items()}
            for name, figures in own["structures"].items()
        },
        "pooled_dice": own["pooled_dice"],
        "case_figures": {figure: found["mean"] for figure, found in own["case_figures"].items()},
        "end_coefficient": own["end_coefficient"],
    }


def pooled_dice(evaluation: FolderEvaluation) -> dict[str, float]:
    """Structure to the Dice of the voxels of all cases together: large ones weigh more. NaN if no case has it."""
    return {
        name: sum((case.counts[name] for case in evaluation.cases if name in case.counts), NO_VOXELS).dice
        for name in evaluation.structures
    }


def reliability_columns(bins: ReliabilityBins | None) -> dict[str, list[float]] | None:
    """The columns `voxels`, `confidence` and `accuracy` of a reliability diagram; None without probabilities."""
    if bins is None:
        return None
    shown = bins.merged(BINS_SHOWN)
    columns = {"voxels": shown.counts, "confidence": shown.mean_confidence, "accuracy": shown.accuracy}
    return {name: column.tolist() for name, column in columns.items()}


def end_coefficients(evaluation: FolderEvaluation, threshold: float) -> dict[str, float]:
    """Variant to `end_share`."""
    return {variant: end_share(evaluation.column(f"end_slice_dice_{variant}"), threshold) for variant in END_VARIANTS}


def end_share(values: Sequence[float], threshold: float) -> float:
    """The end coefficient: the share of cases whose Dice of the end slices is above the threshold.

    NaN without a case that has end slices.
    """
    return nan_mean([float(value > threshold) for value in values if not math.isnan(value)])


def distribution(rows: Sequence[Figures]) -> dict[str, dict[str, float]]:
    """Figure to mean, standard deviation, median, smallest, largest and the number of cases that define it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _spread([row[name] for row in rows if name in row]) for name in names}


def standard_deviation(values: Sequence[float]) -> float:
    """Sample standard deviation, with n - 1 in the denominator; NaN with fewer than two values."""
    return stdev(values) if len(values) > 1 else math.nan


def _spread(values: Sequence[float]) -> dict[str, float]:
    defined = [float(value) for value in values if not math.isnan(value)]
    statistics: dict[str, Callable[[list[float]], float]] = {
        "mean": fmean, "std": standard_deviation, "median": median, "min": min, "max": max
    }  # fmt: skip
    return {name: statistic(defined) if defined else math.nan for name, statistic in statistics.items()} | {
        "cases": len(defined)
    }
