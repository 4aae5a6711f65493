"""Several methods, each with one run or more, on the cases that all of them have.

Runs are trainings with other seeds, which share their cases, or folds, which divide them. A case for which one method
has no value counts for none, and is counted as left out. With `--absent leave-out` that favours a method that makes
up a structure where there is none: the method that is right has no Dice there, the other one 0. If structures are
often absent, evaluate all methods with `--absent perfect`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

from nnunet_ext.evaluation.case_metrics import nan_mean
from nnunet_ext.evaluation.comparison import PairedComparison, paired_comparison
from nnunet_ext.evaluation.ranking import AverageRank, Better, average_ranks, better_end
from nnunet_ext.evaluation.runs import Run
from nnunet_ext.evaluation.summary import standard_deviation

Methods = Mapping[str, Sequence[Run]]  # name to its runs, such as seeds or folds

NO_RANK = AverageRank(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class MethodFigures:
    """One figure of one method.

    Attributes:
        runs: number of runs that have the figure.
        mean: mean over the cases; the value of a case is the mean over the runs that have it.
        std_runs: sample standard deviation of the runs' means; NaN for a single run.
        std_cases: sample standard deviation of the cases' values.
        rank: mean rank over the cases, 1 the best; NaN if neither higher nor lower is better.
    """

    runs: int
    mean: float
    std_runs: float
    std_cases: float
    rank: AverageRank


@dataclass(frozen=True)
class FigureComparison:
    """One figure of all methods.

    Attributes:
        figure: its name.
        better: whether higher or lower is better; None if neither is.
        cases: number of cases for which all methods define it; all other numbers are over these.
        patients: number of patients that they belong to.
        left_out: number of common cases for which a method does not define it.
        methods: name to numbers.
        differences: (method, other) to the first minus the second, for every pair.
    """

    figure: str
    better: Better | None
    cases: int
    patients: int
    left_out: int
    methods: dict[str, MethodFigures]
    differences: dict[tuple[str, str], PairedComparison]

    def difference(self, method: str, other: str) -> PairedComparison | None:
        """A method minus another one; None for a method and itself, or without a case."""
        return self.differences.get((method, other))


def common_cases(methods: Methods) -> list[str]:
    """The cases that every method has in one of its runs, by name.

    Raises:
        ValueError: if there is none.
    """
    cases = set.intersection(*(set().union(*(run.cases for run in runs)) for runs in methods.values()))
    if not cases:
        raise ValueError(
            "Methods are compared on the cases that all of them have; found none. Were they evaluated on the same "
            "test set?"
        )
    return sorted(cases)


def compare_figure(methods: Methods, figure: str, patient_of_case: Mapping[str, str]) -> FigureComparison:
    """Compares one figure.

    Args:
        methods: methods that all have the figure.
        figure: its name.
        patient_of_case: patient of each of the common cases.
    """
    by_run = {
        name: [{case: run.figures[figure].get(case, math.nan) for case in patient_of_case} for run in runs]
        for name, runs in methods.items()
    }
    by_case = {
        name: {case: nan_mean([values[case] for values in runs]) for case in patient_of_case}
        for name, runs in by_run.items()
    }
    cases = [case for case in patient_of_case if not any(math.isnan(values[case]) for values in by_case.values())]
    patients = [patient_of_case[case] for case in cases]
    better = better_end(figure)
    table = np.array([[values[case] for case in cases] for values in by_case.values()])  # (methods, cases)
    ranks = average_ranks(table, patients, better) if better and cases else [NO_RANK] * len(by_case)
    numbers = {
        name: method_figures(by_run[name], [values[case] for case in cases], cases, rank)
        for (name, values), rank in zip(by_case.items(), ranks, strict=True)
    }
    return FigureComparison(
        figure=figure,
        better=better,
        cases=len(cases),
        patients=len(set(patients)),
        left_out=len(patient_of_case) - len(cases),
        methods=numbers,
        differences=pairwise(dict(zip(by_case, table, strict=True)), patients) if cases else {},
    )


def method_figures(
    runs: Sequence[Mapping[str, float]], values: Sequence[float], cases: Sequence[str], rank: AverageRank
) -> MethodFigures:
    """Means and spreads of one method over the cases that count."""
    means = [nan_mean([run[case] for case in cases]) for run in runs]
    defined = [mean for mean in means if not math.isnan(mean)]
    return MethodFigures(
        runs=len(defined),
        mean=fmean(values) if values else math.nan,
        std_runs=standard_deviation(defined),
        std_cases=standard_deviation(values),
        rank=rank,
    )


def pairwise(values: Mapping[str, np.ndarray], patients: Sequence[str]) -> dict[tuple[str, str], PairedComparison]:
    """Each method minus each other one, in both directions."""
    result = {}
    for one, other in combinations(values, 2):
        result[one, other] = paired_comparison(values[one], values[other], groups=patients)
        result[other, one] = paired_comparison(values[other], values[one], groups=patients)
    return result
