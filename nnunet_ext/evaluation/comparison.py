"""Whether one method is better than another on the same cases, or the difference may be chance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_ext.evaluation.bootstrap import interval_of_mean, sums_by_group


@dataclass(frozen=True)
class PairedComparison:
    """Two methods on the same cases; a difference is first - second.

    Attributes:
        mean_difference: over the cases; NaN without any.
        low: lower end of its interval; NaN with fewer than two groups, because one says nothing about others.
        high: upper end.
        level: nominal level of the interval.
        p_value: p-value of Wilcoxon's signed-rank test; NaN if no group differs.
        cases: number of cases in which both methods have a value.
        groups: number of groups that these belong to.
        left_out: number of cases in which a method has no value.
    """

    mean_difference: float
    low: float
    high: float
    level: float
    p_value: float
    cases: int
    groups: int
    left_out: int


def paired_comparison(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[Hashable],
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedComparison:
    """Compares two methods' values of the same cases.

    Interval: the percentiles of a bootstrap over groups (Efron and Tibshirani 1993, "An Introduction to the
    Bootstrap"; SciPy). Groups, such as patients, are drawn with replacement, as many as there are; each drawn group
    brings all its cases, and the mean is over the cases drawn. Drawing single cases would give an interval that is
    too narrow, because cases of a patient resemble each other. With few groups, below 20 or so, percentile intervals
    are too narrow as well.

    Test: Wilcoxon's signed-rank test (Wilcoxon 1945; SciPy), two-sided, over the groups' mean differences, since it
    assumes independent pairs. Groups without a difference are left out, as Wilcoxon did.

    Args:
        first: (N), one value per case, NaN where there is none.
        second: (N), of the same cases in the same order.
        groups: (N), the group of each case: its patient. See `patient_of`.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap; the same one gives the same interval.
        level: level of the interval, above 0 and below 1.

    Returns:
        The comparison over the cases in which both methods have a value; see `PairedComparison`.

    Raises:
        ValueError: if values and groups differ in number, a value is infinite, there is no resample, or the
            level is out of range.
    """
    firsts, seconds = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if firsts.ndim != 1 or firsts.shape != seconds.shape or len(groups) != len(firsts):
        raise ValueError(
            f"Every case needs a value of both methods and a group; found values of the shapes {firsts.shape} and "
            f"{seconds.shape}, and {len(groups)} groups."
        )
    if np.isinf(firsts).any() or np.isinf(seconds).any():
        raise ValueError("Every value must be finite, or NaN where a case has none; found an infinite one.")
    if resamples < 1:
        raise ValueError(f"The bootstrap needs at least one resample; found {resamples}. 10000 are usual.")
    if not 0 < level < 1:
        raise ValueError(f"The level of the interval must be above 0 and below 1; found {level}. 0.95 is usual.")
    differences = firsts - seconds
    counted = ~np.isnan(differences)
    differences = differences[counted]
    sums, sizes = sums_by_group(differences, [group for group, used in zip(groups, counted, strict=True) if used])
    low, high = interval_of_mean(sums, sizes, resamples=resamples, seed=seed, level=level)
    return PairedComparison(
        mean_difference=float(differences.mean()) if differences.size else float("nan"),
        low=low,
        high=high,
        level=level,
        p_value=_signed_rank_p(sums / sizes),
        cases=int(differences.size),
        groups=len(sizes),
        left_out=int((~counted).sum()),
    )


def _signed_rank_p(differences: np.ndarray) -> float:
    """NaN if all are 0, or there are none."""
    rounded = differences.round(12)  # equal differences must be ties, and 0.3 - 0.2 is not quite 0.2 - 0.1
    if not rounded.any():
        return float("nan")
    from scipy.stats import wilcoxon  # imported here, because it takes a second

    return float(wilcoxon(rounded).pvalue)
