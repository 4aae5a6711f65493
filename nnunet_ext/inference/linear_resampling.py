"""nnU-Net's default resampling of logits, in torch: linear, and across thick slices the nearest one.

nnU-Net resamples class by class with scikit-image in double precision. Here all classes go through torch's
interpolation at once; the results differ by rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from nnunetv2.preprocessing.resampling.default_resampling import (
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from torch.nn import functional

SEPARATION = ("force_separate_z", "separate_z_anisotropy_threshold")  # settings about coarse axes
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def is_linear(resampling: Callable[..., Any]) -> bool:
    """Whether a plans' function is nnU-Net's default with the settings that its planner writes for probabilities."""
    if not isinstance(resampling, partial) or resampling.func is not resample_data_or_seg_to_shape:
        return False
    settings = {"is_seg": False, "order": 3, "order_z": 0, **resampling.keywords}
    known = {"is_seg": False, "order": 1, "order_z": 0}
    only_known = settings.keys() <= {*known, *SEPARATION}
    return only_known and all(settings[name] == value for name, value in known.items())


def resample_linear(
    logits: torch.Tensor,
    shape: Sequence[int],
    current_spacing_mm: Sequence[float],
    new_spacing_mm: Sequence[float],
    *,
    force_separate_z: bool | None = None,
    **threshold: float,
) -> torch.Tensor:
    """What `resample_data_or_seg_to_shape` with order 1 returns.

    Args:
        logits: (C, D, H, W).
        shape: of the result, without C.
        current_spacing_mm: of the logits.
        new_spacing_mm: of the result; with the other it decides whether one axis is so coarse that it takes the
            nearest slice.
        force_separate_z: decides it instead.
        threshold: `separate_z_anisotropy_threshold`, above which ratio of spacings an axis is coarse.

    Returns:
        (C, *shape) float32; the logits themselves if they have that shape.
    """
    target = [int(size) for size in shape]
    if list(logits.shape[1:]) == target:
        return logits
    separate, axis = determine_do_sep_z_and_axis(force_separate_z, current_spacing_mm, new_spacing_mm, **threshold)
    if not separate:
        return interpolated(logits[None], target)[0]
    coarse = int(axis) + 1  # behind the classes
    chosen = logits.index_select(coarse, nearest_slices(logits.shape[coarse], target[coarse - 1]))
    slices = chosen.movedim(coarse, 0)  # (S, C, *in_plane)
    in_plane = [size for position, size in enumerate(target) if position != coarse - 1]
    return interpolated(slices, in_plane).movedim(0, coarse)


def nearest_slices(count: int, wanted: int) -> torch.Tensor:
    """(wanted): index of the slice whose centre is nearest to each new one's; halves go up."""
    centres = (torch.arange(wanted, dtype=torch.float64) + 0.5) * (count / wanted)  # in units of the old slices
    return centres.floor().long().clamp_(0, count - 1)


def interpolated(volumes: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """(N, C, *spatial) to (N, C, *shape), linearly between the centres of voxels; constant beyond the outer ones."""
    return functional.interpolate(volumes.float(), size=tuple(shape), mode=MODES[len(shape)], align_corners=False)
