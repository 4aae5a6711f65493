"""The bounding box of a structure, so that metrics need not process a whole image."""

from __future__ import annotations

import numpy as np


def bounding_box(mask: np.ndarray, *, margin: int = 0) -> tuple[slice, ...] | None:
    """The smallest box that holds a mask.

    Args:
        mask: boolean, any shape.
        margin: voxels to add on each side, as far as the image goes.

    Returns:
        A slice for each axis; None if the mask is empty.
    """
    if not mask.any():
        return None
    box = []
    for axis, size in enumerate(mask.shape):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        occupied = np.flatnonzero(mask.any(axis=others))
        box.append(slice(max(int(occupied[0]) - margin, 0), min(int(occupied[-1]) + 1 + margin, size)))
    return tuple(box)


def foreground_box(
    labels: np.ndarray, *, ignore_label: int | None = None, margin: int = 0
) -> tuple[slice, ...] | None:
    """The smallest box that holds all foreground classes of a label map.

    Args:
        labels: (*spatial), of the truth; foreground is above 0.
        ignore_label: does not count as foreground; None if there is none.
        margin: voxels to add on each side, as far as the image goes.

    Returns:
        A slice for each axis. None if there is no foreground: leave such a volume out, and count it.

    Raises:
        ValueError: if the margin is negative.
    """
    if margin < 0:
        raise ValueError(f"The margin must be 0 voxels or more; found {margin}.")
    foreground = labels > 0 if ignore_label is None else (labels > 0) & (labels != ignore_label)
    return bounding_box(foreground, margin=margin)
