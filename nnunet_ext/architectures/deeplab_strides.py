"""Strides, dilations and atrous rates of a DeepLabV3+ from nnU-Net's plans (arXiv 1802.02611)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

OUTPUT_STRIDE = 16  # the encoder does not down-sample further
LOW_LEVEL_STRIDE = 4  # stride of the low-level features that the decoder uses
RATES = (6, 12, 18)  # the paper's atrous rates at output stride 16
RATES_GRID = 33  # size of the feature grid of the paper's 513 x 513 crops at output stride 16

Axes = tuple[int, ...]  # one number per spatial axis


def limited_strides(strides: Sequence[Axes]) -> tuple[list[Axes], list[Axes]]:
    """Strides and dilations of each stage such that no axis is down-sampled beyond 1/16.

    A stage whose stride would lead beyond 1/16 gets a stride of 1 along that axis, and it and all deeper stages are
    dilated by that stride instead, so that their receptive fields are unchanged.

    Args:
        strides: planned stride of each stage, per axis.

    Returns:
        The strides and the dilations of each stage, per axis.
    """
    total, dilation = [1] * len(strides[0]), [1] * len(strides[0])
    steps, dilations = [], []
    for stride in strides:
        step = list(stride)
        for axis, factor in enumerate(stride):
            if total[axis] * factor > OUTPUT_STRIDE:
                step[axis] = 1
                dilation[axis] *= factor
            total[axis] *= step[axis]
        steps.append(tuple(step))
        dilations.append(tuple(dilation))
    return steps, dilations


def low_level_stage(steps: Sequence[Axes]) -> int:
    """Index of the last stage before the deepest that is down-sampled by at most 4 along all axes; 0 if none is.

    Args:
        steps: stride of each stage, per axis.
    """
    totals = [tuple(prod(column) for column in zip(*steps[: stage + 1], strict=True)) for stage in range(len(steps))]
    return max((stage for stage in range(len(steps) - 1) if max(totals[stage]) <= LOW_LEVEL_STRIDE), default=0)


def atrous_rates_for(patch_size: Sequence[int], strides: Sequence[int | Sequence[int]]) -> list[Axes]:
    """The paper's atrous rates 6, 12 and 18, which are for a grid of 33 positions per axis, scaled to a patch.

    With a rate as large as the grid, a 3x3 convolution reads only padding around its centre and degenerates to a 1x1
    convolution.

    Args:
        patch_size: patch size in voxels along each axis.
        strides: stride of each stage, as for `DeepLabV3Plus`.

    Returns:
        For each of the three branches one rate per axis, at least 1.
    """
    steps, _ = limited_strides([per_axis(stride, len(patch_size)) for stride in strides])
    totals = [prod(column) for column in zip(*steps, strict=True)]
    grid = [-(-length // total) for length, total in zip(patch_size, totals, strict=True)]
    return [tuple(max(1, round(rate * length / RATES_GRID)) for length in grid) for rate in RATES]


def per_axis(value: int | Sequence[int], dimensions: int) -> Axes:
    """One number per axis; a single number is repeated.

    Raises:
        ValueError: if the number of values differs from the number of axes.
    """
    axes = (value,) * dimensions if isinstance(value, int) else tuple(value)
    if len(axes) != dimensions:
        raise ValueError(f"A {dimensions}D network needs {dimensions} numbers, one per axis; found {axes}.")
    return axes


def require_stages(strides: Sequence[Axes], features_per_stage: Sequence[int]) -> None:
    """Raises ValueError unless there are at least two stages, the first without stride, and features for each."""
    if len(strides) < 2 or prod(strides[0]) != 1:
        raise ValueError(
            f"DeepLabV3+ needs at least two stages, the first with stride 1; found the strides {strides}. Check "
            f"strides in the plans."
        )
    if len(strides) != len(features_per_stage):
        raise ValueError(
            f"Every stage needs one stride and one number of features; found {len(strides)} strides and "
            f"{len(features_per_stage)} numbers of features. Check strides and features_per_stage in the plans."
        )
