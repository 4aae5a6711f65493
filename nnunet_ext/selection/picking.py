"""What all strategies share: places to fill, and picking the best unit for each without overlaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nnunet_ext.selection.units import Choice, Unit, overlap

Preference = Callable[[int | None], np.ndarray]
"""For a label, or None for all, a number for each unit: the larger, the better; -inf where the label is not."""


def labels_in(units: Sequence[Unit]) -> list[int]:
    """The foreground labels that are predicted anywhere."""
    return sorted({label for unit in units for label in unit.label_scores})


def places(number: int, labels: Sequence[int], stratified: float, generator: np.random.Generator) -> list[int | None]:
    """Which label each place of a selection is for, in random order; None is for any unit.

    Args:
        number: of places.
        labels: that share the stratified places evenly; who gets one more is drawn.
        stratified: share of the places that are for a label, rounded down.
        generator: of the random order.
    """
    of_labels = int(round(stratified * number, 6)) if labels else 0
    each, left = divmod(of_labels, max(len(labels), 1))
    lucky = set(generator.permutation(labels)[:left].tolist()) if left else set()
    found = [label for label in labels for _ in range(each + (label in lucky))]
    order = generator.permutation(number)
    filled: list[int | None] = [*found, *[None] * (number - len(found))]
    return [filled[position] for position in order]


def pick(
    units: Sequence[Unit],
    wanted: Sequence[int | None],
    preference: Preference,
    most_per_case: int | None = None,
) -> list[Choice]:
    """Fills one place after the other with the unit that is preferred for it among those still free.

    Units that overlap with a chosen one are no longer free. Where no free unit has the label of a place, it is filled
    as one for any unit.

    Args:
        units: to choose from.
        wanted: the places, see `places`.
        preference: of the strategy.
        most_per_case: how many units of one case are chosen at most; None does not limit them.

    Returns:
        The chosen ones in the order of the places; fewer if no unit is free any more.
    """
    free = np.ones(len(units), dtype=bool)
    of_case: dict[str, list[int]] = {}
    for index, unit in enumerate(units):
        of_case.setdefault(unit.case, []).append(index)
    chosen: list[Choice] = []
    for label in wanted:
        if not free.any():
            break
        values = np.where(free, preference(label), -np.inf)
        if label is not None and not np.isfinite(values).any():
            label, values = None, np.where(free, preference(None), -np.inf)
        unit = units[int(values.argmax())]
        chosen.append(Choice(unit, label))
        is_full = most_per_case is not None and sum(one.unit.case == unit.case for one in chosen) >= most_per_case
        for index in of_case[unit.case]:
            if is_full or overlap(units[index].box, unit.box):
                free[index] = False
    return chosen
