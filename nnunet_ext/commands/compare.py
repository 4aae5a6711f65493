"""What `nnunet_ext compare` does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunet_ext.evaluation.method_comparison import FigureComparison, common_cases, compare_figure
from nnunet_ext.evaluation.method_text import method_lines
from nnunet_ext.evaluation.runs import Run, common_figures, read_run, require_same_settings
from nnunet_ext.evaluation.summary import write_table
from nnunet_ext.files.atomic import without_nan, write_json
from nnunet_ext.options import CompareOptions
from nnunet_ext.patients import patient_of

USUAL_CASE_FIGURES = (
    "mean_dice", "end_coefficient_paper", "end_coefficient_strict", "ece", "brier", "nll"
)  # fmt: skip
USUAL_OF_STRUCTURES = (" dice", " hd95_mm", " nsd")


@dataclass(frozen=True)
class CompareResult:
    """The result of a comparison.

    Attributes:
        lines: text for the terminal.
        comparisons: one for each figure.
        folder: folder of the tables; None if none were asked for.
    """

    lines: list[str]
    comparisons: list[FigureComparison]
    folder: Path | None


def compare_evaluations(options: CompareOptions) -> CompareResult:
    """Compares methods on the cases that all of them have; writes the tables if asked to.

    Raises:
        FileNotFoundError: if a folder is not an evaluation.
        ValueError: if runs were evaluated with different settings, no case is common, a figure is missing, or the
            pattern of patients does not match a case.
    """
    methods = {name: [read_run(folder) for folder in folders] for name, folders in options.methods.items()}
    runs = [run for each in methods.values() for run in each]
    require_same_settings(runs)
    patients = {case: patient_of(case, options.patients) for case in common_cases(methods)}
    comparisons = [compare_figure(methods, figure, patients) for figure in chosen_figures(runs, options.figures)]
    uncommon = len(set().union(*(run.cases for run in runs))) - len(patients)
    summary = {
        "cases": len(patients),
        "patients": len(set(patients.values())),
        "not_common": uncommon,
        "methods": {name: [str(run.folder) for run in each] for name, each in methods.items()},
        "settings": runs[0].settings,
    }
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        content = summary | {"figures": {found.figure: figure_json(found) for found in comparisons}}
        write_json(without_nan(content), options.output / "compare.json")
        write_table([row for found in comparisons for row in rows_of(found)], options.output / "compare.csv")
    return CompareResult(method_lines(comparisons, summary), comparisons, options.output)


def chosen_figures(runs: list[Run], asked_for: tuple[str, ...]) -> list[str]:
    """The figures to compare.

    Raises:
        ValueError: if a run lacks one that was asked for.
    """
    available = common_figures(runs)
    missing = [figure for figure in asked_for if figure not in available]
    if missing:
        raise ValueError(
            f"A figure to compare must be in every evaluation; {', '.join(missing)} is not in all of them. Choose "
            f"from {', '.join(available)}."
        )
    usual = [figure for figure in USUAL_CASE_FIGURES if figure in available]
    return list(asked_for) or usual + [figure for figure in available if figure.endswith(USUAL_OF_STRUCTURES)]


def figure_json(found: FigureComparison) -> dict[str, Any]:
    """A figure as `compare.json` holds it."""
    return {
        "better": found.better,
        "cases": found.cases,
        "patients": found.patients,
        "left_out": found.left_out,
        "methods": {name: asdict(numbers) for name, numbers in found.methods.items()},
        "differences": {
            name: {other: asdict(found.differences[name, other]) for other in found.methods if other != name}
            for name in found.methods
        }
        if found.differences
        else {},
    }


COLUMNS = {  # of compare.csv, for the reference
    "figure": "a column of `case_metrics.csv`, or structure and column of `metrics.csv`",
    "method": "its name",
    "runs": "how many runs of the method have the figure",
    "cases": "those for which every method has a value; all other numbers are over them",
    "patients": "that these cases belong to",
    "left_out": "common cases for which a method has no value",
    "mean": "over the cases",
    "std_runs": "standard deviation of the runs' means",
    "std_cases": "standard deviation of the cases' values",
    "rank": "mean rank over the cases, 1 the best; empty for figures without a better end",
    "rank_low": "lower end of its interval",
    "rank_high": "upper end",
    "less": "the first method, with which this one is compared; empty for the first itself, as are the next four",
    "difference": "mean difference from the first method",
    "low": "lower end of its interval",
    "high": "upper end",
    "p_value": "of Wilcoxon's test",
}


def rows_of(found: FigureComparison) -> list[dict[str, Any]]:
    """A row for each method, with its difference from the first one."""
    first = next(iter(found.methods))
    rows = []
    for name, numbers in found.methods.items():
        row: dict[str, Any] = {
            "figure": found.figure,
            "method": name,
            "runs": numbers.runs,
            "cases": found.cases,
            "patients": found.patients,
            "left_out": found.left_out,
            "mean": numbers.mean,
            "std_runs": numbers.std_runs,
            "std_cases": numbers.std_cases,
            "rank": numbers.rank.mean,
            "rank_low": numbers.rank.low,
            "rank_high": numbers.rank.high,
        }
        if (difference := found.difference(name, first)) is not None:
            row |= {
                "less": first,
                "difference": difference.mean_difference,
                "low": difference.low,
                "high": difference.high,
                "p_value": difference.p_value,
            }
        rows.append(row)
    return rows
