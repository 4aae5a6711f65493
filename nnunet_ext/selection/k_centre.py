"""Greedy k-centre: units that differ from each other and from what has labels, after Sener and Savarese."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunet_ext.selection.units import Choice


def k_centre(
    candidates: Sequence[Choice], features: np.ndarray, number: int, centres: np.ndarray | None = None
) -> list[Choice]:
    """Again and again the candidate that is farthest from the nearest centre, which then is a centre itself.

    Args:
        candidates: to choose from, the most uncertain first; none overlaps with another.
        features: (candidates, n), one row each.
        number: of units.
        centres: (m, n), features of what has labels; without any, the first candidate is chosen first.
    """
    distances = np.full(len(candidates), np.inf)
    for centre in () if centres is None else centres:
        distances = np.minimum(distances, distances_to(centre, features))
    chosen: list[Choice] = []
    for _ in range(min(number, len(candidates))):
        index = int(distances.argmax())  # the first of equals, so the most uncertain one
        chosen.append(candidates[index])
        distances = np.minimum(distances, distances_to(features[index], features))
        distances[index] = -1.0  # never again, even beside its equals
    return chosen


def distances_to(centre: np.ndarray, features: np.ndarray) -> np.ndarray:
    """(candidates,), Euclidean."""
    return np.linalg.norm(features - centre, axis=1)
