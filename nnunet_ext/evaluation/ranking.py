"""Which of several methods is best on most cases: ranks per case, and their mean with an interval.

Ranking each case and then taking the mean differs from ranking the means: it does not let a few cases decide
(Maier-Hein et al. 2018, arXiv 1806.02051; bootstrap of rankings: Wiesenfarth et al. 2021, arXiv 1910.05121).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_ext.evaluation.bootstrap import interval_of_mean, sums_by_group
from nnunet_ext.evaluation.case_columns import ANY_MAP, CASE_COLUMNS
from nnunet_ext.evaluation.structure_metrics import STRUCTURE_METRICS, Better

BETTER: dict[str, Better] = {
    **{metric.column: metric.better for metric in STRUCTURE_METRICS if metric.better},
    **{row.column: row.better for row in CASE_COLUMNS if row.better},
    "end_coefficient_paper": "higher",
    "end_coefficient_strict": "higher",
}
MAP_FIGURES = {  # endings of the columns of any map
    row.column.removeprefix(ANY_MAP): row.better for row in CASE_COLUMNS if row.column.startswith(ANY_MAP)
}
ROUNDING = 6  # significant digits of the tables; values that agree in them are ties


@dataclass(frozen=True)
class AverageRank:
    """A method's mean rank over the cases, 1 the best, and its interval; NaN with fewer than two groups."""

    mean: float
    low: float
    high: float


def better_end(figure: str) -> Better | None:
    """Whether higher or lower values of a figure are better; None if neither, as for a volume.

    Args:
        figure: a column of `case_metrics.csv`, or a structure and a column of `metrics.csv` such as "LV dice".
    """
    name = figure.rpartition(" ")[2]
    of_a_map = [better for ending, better in MAP_FIGURES.items() if name.endswith(ending)]
    return of_a_map[0] if of_a_map else BETTER.get(name)


def case_ranks(values: np.ndarray, better: Better) -> np.ndarray:
    """Ranks of the methods in each case.

    Args:
        values: (methods, cases), finite.
        better: which direction is better.

    Returns:
        (methods, cases), 1 for the best; methods that agree get the mean of their ranks.
    """
    from scipy.stats import rankdata  # imported here, because it takes a second

    badness = {"higher": -values, "lower": values, "closer to 0": np.abs(values)}[better]
    return rankdata(np.array([[float(f"{value:.{ROUNDING}g}") for value in row] for row in badness]), axis=0)


def average_ranks(
    values: np.ndarray,
    groups: Sequence[Hashable],
    better: Better,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> list[AverageRank]:
    """Ranks each case, then takes the mean over the cases (Maier-Hein et al. 2018, arXiv 1806.02051).

    Interval: the percentiles of a bootstrap over groups, see `interval_of_mean`. A method's rank in a case does not
    depend on which other cases are drawn, so ranks are computed once.

    Args:
        values: (methods, cases), finite.
        groups: (cases), the group of each: its patient.
        better: which direction is better.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap; all methods use the same draws.
        level: level of the interval.

    Returns:
        One rank for each method.
    """
    ranks = []
    for row in case_ranks(values, better):
        low, high = interval_of_mean(*sums_by_group(row, groups), resamples=resamples, seed=seed, level=level)
        ranks.append(AverageRank(float(row.mean()), low, high))
    return ranks
