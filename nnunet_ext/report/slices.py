"""Which slices of a case are shown, and which part of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nnunet_ext.boxes import bounding_box

SHOWN = 4  # slices of a case
MARGIN = 0.2  # of the box's longer side
SMALLEST_MM = 24.0  # side of a crop
LARGEST = "largest area"
ORDINALS = ("most uncertain", "second most uncertain", "third most uncertain", "fourth most uncertain")


def shown_slices(segmentation: np.ndarray, uncertainty: np.ndarray | None) -> dict[int, list[str]]:
    """The two most uncertain slices and the two ends of the segmentation, along the first axis.

    Where these are fewer than four, the next most uncertain ones fill the row.

    Args:
        segmentation: label map (z, y, x); foreground is above 0.
        uncertainty: (z, y, x), or None: then the slice with most foreground takes the place of the uncertain ones.

    Returns:
        Index to the reasons why it is shown, by index; the middle slice if there is no reason for any.
    """
    areas = (segmentation > 0).reshape(len(segmentation), -1).sum(axis=1)
    ends = np.flatnonzero(areas)[[0, -1]].tolist() if areas.any() and len(segmentation) > 1 else []
    uncertain = _by_uncertainty(uncertainty)
    wanted = [*uncertain[:2], *ends, *uncertain[2:SHOWN]]
    if uncertainty is None and areas.any():
        wanted.append(int(areas.argmax()))
    chosen = sorted(list(dict.fromkeys(wanted))[:SHOWN]) or [len(segmentation) // 2]
    reasons: dict[int, list[str]] = {index: [] for index in chosen}
    for index, words in [
        *zip(uncertain, ORDINALS, strict=False),
        *zip(ends, ("first with foreground", "last with foreground"), strict=False),
    ]:
        if index in reasons:
            reasons[index].append(words)
    if uncertainty is None and areas.any():
        reasons[int(areas.argmax())].append(LARGEST)
    return {index: words or ["middle"] for index, words in reasons.items()}


def opening_slice(chosen: Mapping[int, list[str]]) -> int:
    """Of the chosen slices the most uncertain one, else the one with most foreground, else the first."""
    return min(chosen, key=lambda index: not {ORDINALS[0], LARGEST}.intersection(chosen[index]))


def _by_uncertainty(uncertainty: np.ndarray | None) -> list[int]:
    """Slices with any uncertainty, the largest sum first; the first of equals."""
    if uncertainty is None:
        return []
    sums = uncertainty.reshape(len(uncertainty), -1).sum(axis=1, dtype=np.float64)
    return [int(index) for index in np.argsort(-sums, kind="stable") if sums[index] > 0]


def picture_box(
    masks: list[np.ndarray], shape: tuple[int, int], spacing_mm: tuple[float, float]
) -> tuple[slice, slice]:
    """A box in the plane around everything that is marked, as square in mm as the image allows.

    Args:
        masks: (z, y, x) each, boolean.
        shape: of a slice, (y, x).
        spacing_mm: along y and x.

    Returns:
        Slices for y and x; the whole image if nothing is marked.
    """
    marked = np.zeros(shape, dtype=bool)
    for mask in masks:
        marked |= mask.any(axis=0)
    box = bounding_box(marked)
    if box is None:
        return slice(0, shape[0]), slice(0, shape[1])
    sides_mm = [(part.stop - part.start) * step for part, step in zip(box, spacing_mm, strict=True)]
    side_mm = max(max(sides_mm) * (1 + 2 * MARGIN), SMALLEST_MM)
    y, x = (
        _widened(part, round(side_mm / step), size) for part, step, size in zip(box, spacing_mm, shape, strict=True)
    )
    return y, x


def _widened(part: slice, length: int, size: int) -> slice:
    """A slice of this length around another one, moved into the image; shorter if the image is."""
    length = min(max(length, part.stop - part.start), size)
    start = (part.start + part.stop - length) // 2
    start = min(max(start, 0), size - length)
    return slice(start, start + length)
