"""The voxels that count in a metric of probabilities, checked and in chunks.

Classes exclude each other and have one softmax: probabilities (C, *spatial) and a label map (*spatial). Regions
overlap and have a sigmoid each: probabilities (R, *spatial) and masks (R, *spatial). A mask (*spatial) says which
voxels count, for instance `mask=labels != ignore_label`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ROUNDING = 1e-3  # by which probabilities may leave [0, 1], as in half precision
CHUNK = 1 << 18  # voxels at a time, so that temporary arrays stay small whatever the volume


def class_chunks(
    probabilities: np.ndarray, labels: np.ndarray, mask: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(C, n) and (n) of the voxels that count, at most `CHUNK` at a time; checked."""
    if probabilities.ndim < 2 or probabilities.shape[1:] != labels.shape or not len(probabilities):
        raise ValueError(
            f"Probabilities must be (C, *spatial) and labels (*spatial) of the same grid; found "
            f"{probabilities.shape} and {labels.shape}."
        )
    for values, truth in _counted(probabilities, labels[None], mask):
        smallest, largest = truth.min(), truth.max()
        if smallest < 0 or largest >= len(values):
            raise ValueError(
                f"Labels of {len(values)} classes must be 0 to {len(values) - 1}; found {smallest} to {largest}. "
                f"Leave out the ignore label with a mask: mask=labels != ignore_label."
            )
        yield values, truth[0]


def region_chunks(
    probabilities: np.ndarray, truth: np.ndarray, mask: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(R, n) and (R, n) of the voxels that count, at most `CHUNK` at a time; checked."""
    if probabilities.ndim < 2 or probabilities.shape != truth.shape or not len(probabilities):
        raise ValueError(
            f"Probabilities and truth of regions must both be (R, *spatial); found {probabilities.shape} and "
            f"{truth.shape}."
        )
    if truth.dtype != bool:
        raise TypeError(f"The truth of regions must be boolean masks, one each; found {truth.dtype}.")
    yield from _counted(probabilities, truth, mask)


def _counted(
    probabilities: np.ndarray, truth: np.ndarray, mask: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks (C, n) and (T, n) of probabilities and truth inside the mask; no chunk is empty."""
    spatial = probabilities.shape[1:]
    if mask is not None and mask.dtype != bool:
        raise TypeError(f"The mask must be boolean; found {mask.dtype}.")
    if mask is not None and mask.shape != spatial:
        raise ValueError(f"The mask must have the shape of the image, {spatial}; found {mask.shape}.")
    voxels = int(np.prod(spatial))
    flat = probabilities.reshape(len(probabilities), voxels)
    flat_truth = truth.reshape(len(truth), voxels)
    flat_mask = None if mask is None else mask.reshape(voxels)
    for start in range(0, voxels, CHUNK):
        part = slice(start, start + CHUNK)
        values, known = flat[:, part], flat_truth[:, part]
        if flat_mask is not None:
            values, known = values[:, flat_mask[part]], known[:, flat_mask[part]]
        if not known.size:
            continue
        smallest, largest = values.min(), values.max()
        if not (smallest >= -ROUNDING and largest <= 1 + ROUNDING):  # so that NaN is refused, too
            raise ValueError(
                f"Probabilities must be in [0, 1]; found {smallest} to {largest}. Apply softmax or sigmoid to logits."
            )
        yield values, known
