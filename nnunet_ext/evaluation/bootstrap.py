"""How much a mean over cases depends on which patients happened to be sampled."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

DRAWS = 1 << 20  # patients drawn at a time, so that temporary arrays stay small however many there are


def sums_by_group(values: np.ndarray, groups: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Sums the values of each group.

    Args:
        values: (N), one per case.
        groups: (N), the group of each case: its patient.

    Returns:
        sums: (G), sums of the groups' values, in the order in which groups first appear.
        sizes: (G), number of cases of each group.
    """
    number_of: dict[Hashable, int] = {}
    members = np.array([number_of.setdefault(group, len(number_of)) for group in groups], dtype=np.int64)
    return np.bincount(members, weights=values), np.bincount(members)


def interval_of_mean(
    sums: np.ndarray, sizes: np.ndarray, *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean over cases from a bootstrap over groups (SciPy).

    Groups are drawn with replacement, as many as there are; each drawn group brings all its cases, and the
    mean is over the cases drawn.

    Args:
        sums: (G), sums of the groups' values.
        sizes: (G), number of cases of each group.
        resamples: number of resamples, at least one.
        seed: the same seed draws the same groups.
        level: level of the interval, above 0 and below 1.

    Returns:
        Lower and upper end; NaN with fewer than two groups, because one says nothing about others.
    """
    if len(sums) < 2:
        return float("nan"), float("nan")
    from scipy.stats import bootstrap  # imported here, because it takes a second

    interval = bootstrap(
        (sums, sizes),
        lambda drawn_sums, drawn_sizes, axis: drawn_sums.sum(axis=axis) / drawn_sizes.sum(axis=axis),
        paired=True,
        n_resamples=resamples,
        batch=max(1, DRAWS // len(sums)),
        confidence_level=level,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)
