"""Probabilities packed for the disk: half precision, without the background, and of many classes only the top ones.

The background of classes is what the others leave of 1. So a patch that reaches beyond the image can be padded with
0, as nnU-Net's loader pads images: there the background is certain, and no region is present.
"""

from __future__ import annotations

import numpy as np

TOP_CLASSES = 4  # of a voxel that are kept if a dataset has too many to keep all
HALF, BITS = np.float16, np.uint16  # of all outputs, and of the top ones: their numbers, then half-precision bits


def outputs_on_disk(outputs: int, *, regions: bool) -> int:
    """How many of a network's outputs have probabilities on disk: all regions, or all classes but the background."""
    return outputs if regions else outputs - 1


def keeps_all(outputs: int, top: int, *, regions: bool) -> bool:
    """Whether the probabilities of all outputs are kept: for regions, and where the top ones would not be smaller."""
    return regions or outputs - 1 <= 2 * top


def bytes_per_voxel(outputs: int, top: int, *, regions: bool) -> int:
    """Size of a voxel before compression."""
    number = outputs_on_disk(outputs, regions=regions) if keeps_all(outputs, top, regions=regions) else 2 * top
    return number * np.dtype(HALF).itemsize


def packed(probabilities: np.ndarray, top: int, *, regions: bool) -> np.ndarray:
    """Probabilities as they are written.

    Args:
        probabilities: (C, *spatial) of all outputs, the background first for classes.
        top: number of classes that are kept of a voxel, the background among them; they are divided by their sum.

    Returns:
        (F, *spatial) in half precision if all outputs are kept, see `keeps_all`; otherwise (2 top, *spatial) of
        unsigned 16-bit numbers: output numbers, 0 for none, and the bits of their probabilities in half precision.
    """
    if regions:
        return probabilities.astype(HALF)
    if keeps_all(len(probabilities), top, regions=False):
        return probabilities[1:].astype(HALF)
    numbers = np.argpartition(probabilities, -top, axis=0)[-top:]
    values = np.take_along_axis(probabilities, numbers, axis=0)
    values = (values / values.sum(axis=0, keepdims=True)).astype(HALF)
    values[numbers == 0] = 0  # the background is what the others leave
    return np.concatenate([numbers.astype(BITS), values.view(BITS)])


def unpacked(array: np.ndarray, outputs: int, *, regions: bool) -> np.ndarray:
    """Probabilities (F, *spatial) in fp32 of all outputs but the background, from what `packed` returned.

    Args:
        array: what `packed` returned, or a part of it with all its channels.
        outputs: of the network, with the background.
        regions: whether the outputs are regions.
    """
    if array.dtype == HALF:
        return array.astype(np.float32)
    top = len(array) // 2
    numbers, values = array[:top].astype(np.int64), np.ascontiguousarray(array[top:]).view(HALF)
    result = np.zeros((outputs, *array.shape[1:]), np.float32)
    np.put_along_axis(result, numbers, values.astype(np.float32), axis=0)
    return result if regions else result[1:]
