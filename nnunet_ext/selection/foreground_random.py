"""Foreground-aware random: the baseline that a strategy has to beat, after Lüth et al. (arXiv 2511.19183)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunet_ext.selection.picking import labels_in, pick, places
from nnunet_ext.selection.units import Choice, Unit


def foreground_random(
    units: Sequence[Unit],
    number: int,
    *,
    stratified: float,
    generator: np.random.Generator,
    most_per_case: int | None = None,
) -> list[Choice]:
    """Random units, a share of which must hold a predicted label, evenly over the labels; scores do not count.

    Args:
        units: to choose from.
        number: of units.
        stratified: the share; 0 is plain random.
        generator: of the draw.
        most_per_case: how many units of one case are chosen at most; None does not limit them.
    """
    labels = labels_in(units)
    drawn = generator.random(len(units))
    has_label = {label: np.array([label in unit.label_scores for unit in units]) for label in labels}

    def preference(label: int | None) -> np.ndarray:
        return drawn if label is None else np.where(has_label[label], drawn, -np.inf)

    return pick(units, places(number, labels, stratified, generator), preference, most_per_case)
