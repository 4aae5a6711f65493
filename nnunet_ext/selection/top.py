"""The most uncertain units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunet_ext.selection.picking import pick
from nnunet_ext.selection.units import Choice, Unit


def top(units: Sequence[Unit], number: int, most_per_case: int | None = None) -> list[Choice]:
    """The units with the highest scores, the highest first; of equals the first."""
    scores = np.array([unit.score for unit in units])
    return pick(units, [None] * number, lambda _: scores, most_per_case)
