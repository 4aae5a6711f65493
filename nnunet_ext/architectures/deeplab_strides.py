"""Where a DeepLabV3+ down-samples, by the strides of nnU-Net's plans (arXiv 1802.02611)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

OUTPUT_STRIDE = 16  # the encoder does not down-sample further
LOW_LEVEL_STRIDE = 4  # of the features that the decoder adds
RATES = (6, 12, 18)  # of the paper at output stride 16
RATES_GRID = 33  # positions an axis of the features of the paper's 513 x 513 crops

Axes = tuple[int, ...]  # one number per spatial axis


def limited_strides(strides: Sequence[Axes]) -> tuple[list[Axes], list[Axes]]:
    """Strides and dilations of each stage such that no axis is down-sampled beyond 1/16.

    A stage whose stride would lead beyond it has a stride of 1 along that axis. It and all deeper ones are dilated by
    that stride instead, so that each sees as far as it would have seen.

    Args:
        strides: of each stage, per axis.
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
    """The last stage but the deepest that is down-sampled by 4 or less along all axes; the first one at the least.

    Args:
        steps: strides of each stage, per axis.
    """
    totals = [tuple(prod(column) for column in zip(*steps[: stage + 1], strict=True)) for stage in range(len(steps))]
    return max((stage for stage in range(len(steps) - 1) if max(totals[stage]) <= LOW_LEVEL_STRIDE), default=0)


def atrous_rates_for(patch_size: Sequence[int], strides: Sequence[int | Sequence[int]]) -> list[Axes]:
    """The paper's rates 6, 12, 18 in proportion to a patch: they are for a grid of 33 positions an axis.

    A rate that is not smaller than the grid meets zeros only, and its 3x3 convolution is no more than a 1x1 one.

    Args:
        patch_size: of the network's input, in voxels along each axis.
        strides: of each stage, as for `DeepLabV3Plus`.

    Returns:
        One rate an axis for each branch, at least 1.
    """
    steps, _ = limited_strides([per_axis(stride, len(patch_size)) for stride in strides])
    totals = [prod(column) for column in zip(*steps, strict=True)]
    grid = [-(-length // total) for length, total in zip(patch_size, totals, strict=True)]
    return [tuple(max(1, round(rate * length / RATES_GRID)) for length in grid) for rate in RATES]


def per_axis(value: int | Sequence[int], dimensions: int) -> Axes:
    """One number for each axis.

    Raises:
        ValueError: if there are not as many.
    """
    axes = (value,) * dimensions if isinstance(value, int) else tuple(value)
    if len(axes) != dimensions:
        raise ValueError(f"A {dimensions}D network needs {dimensions} numbers, one an axis; found {axes}.")
    return axes


def require_stages(strides: Sequence[Axes], features_per_stage: Sequence[int]) -> None:
    """Raises ValueError unless there are two stages or more, the first one without stride, and features for each."""
    if len(strides) < 2 or prod(strides[0]) != 1:
        raise ValueError(
            f"The network needs two stages or more, the first one with stride 1; found the strides {strides}."
        )
    if len(strides) != len(features_per_stage):
        raise ValueError(
            f"Every stage needs its stride and its features; found {len(strides)} strides and "
            f"{len(features_per_stage)} features."
        )
