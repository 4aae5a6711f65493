"""Noisy "power" sampling, stratified by class: uncertain units, but not all of one kind.

Power sampling is by Kirsch et al. (arXiv 2106.12059), the strata by Lüth et al. (arXiv 2601.13677).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunet_ext.selection.picking import labels_in, pick, places
from nnunet_ext.selection.units import Choice, Unit

SMALLEST_SCORE = 1e-12  # in place of 0, whose logarithm would be the same with any noise


def power(
    units: Sequence[Unit],
    number: int,
    *,
    beta: float,
    stratified: float,
    generator: np.random.Generator,
    most_per_case: int | None = None,
) -> list[Choice]:
    """Units drawn without replacement with probabilities proportional to score^beta.

    The logarithm of the score plus Gumbel noise of scale 1/beta, whose largest values are such a draw.

    Args:
        units: to choose from.
        number: of units.
        beta: 0 < beta; the larger, the less noise.
        stratified: share of the units that are chosen by their score in one predicted label, evenly over labels.
        generator: of the noise.
        most_per_case: how many units of one case are chosen at most; None does not limit them.
    """
    labels = labels_in(units)
    noisy = {label: noisy_scores(units, label, beta, generator) for label in (None, *labels)}
    return pick(units, places(number, labels, stratified, generator), noisy.__getitem__, most_per_case)


def noisy_scores(units: Sequence[Unit], label: int | None, beta: float, generator: np.random.Generator) -> np.ndarray:
    """log score + noise of each unit; -inf where the label is not."""
    scores = np.array([unit.score if label is None else unit.label_scores.get(label, np.nan) for unit in units])
    noisy = np.log(np.maximum(scores, SMALLEST_SCORE)) + generator.gumbel(0, 1 / beta, size=len(units))
    return np.where(np.isnan(scores), -np.inf, noisy)
