"""Early exit: where the result is settled, the remaining members do not run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch.nn import functional

from nnunet_ext.inference.accumulation.moments import Moments
from nnunet_ext.inference.sliding_window import Tile, TiledImage
from nnunet_ext.options import EARLY_EXITS, EarlyExit, require_choice

ROUNDING = 1e-5  # relative error of a single-precision mean over hundreds of members, added to what they can change


class SettledRule(Protocol):
    """Decides where no further member is needed."""

    def settled(self, moments: Moments, weight_left: float) -> torch.Tensor | None:
        """Where the result is settled.

        Args:
            moments: running moments of the members so far.
            weight_left: total weight of the remaining members.

        Returns:
            (*spatial) bool; None while the rule cannot tell yet.
        """


class LabelSettled:
    """Settled where the remaining members cannot change the label, whatever they predict.

    The segmentation is the same as without early exit.
    """

    def settled(self, moments: Moments, weight_left: float) -> torch.Tensor | None:
        """See `SettledRule`. Probabilities are in [0, 1], so a member moves a weighted sum by at most its weight."""
        if moments.largest_weight() <= weight_left:
            return None
        weight_left += ROUNDING * moments.largest_weight()
        if not moments.regions:
            return gap_of_two_largest(moments.mean()) * moments.weight() > weight_left
        sums = moments.mean() * moments.weight()  # (R, *spatial)
        half = (moments.weight() + weight_left) / 2
        return ((sums > half) | (sums + weight_left <= half)).all(0)


class InformationSettled:
    """Settled where the mutual information has stopped changing: a heuristic, the label may still change.

    Args:
        tolerance: largest change of the mutual information by the last member, as a share of its largest value.
        least_members: number of members that always run before anything counts as settled.
    """

    def __init__(self, *, tolerance: float = 0.01, least_members: int = 3) -> None:
        self.tolerance = tolerance
        self.least_members = least_members
        self._before: torch.Tensor | None = None

    def settled(self, moments: Moments, weight_left: float) -> torch.Tensor | None:
        """See `SettledRule`. Must be called after every member, because it compares with the call before."""
        now = moments.mutual_information() / moments.largest_entropy()
        before, self._before = self._before, now
        if before is None or moments.members < self.least_members:
            return None
        return (now - before).abs() < self.tolerance


def rule_for(name: EarlyExit) -> SettledRule:
    """A new rule for one case.

    Raises:
        ValueError: if no rule has this name.
    """
    require_choice("early_exit", name, EARLY_EXITS)
    return LabelSettled() if name == "label" else InformationSettled()


def gap_of_two_largest(values: torch.Tensor) -> torch.Tensor:
    """The largest value minus the second largest over the first axis: (C, *spatial) to (*spatial)."""
    first = values[0].clone()
    second = torch.full_like(first, -torch.inf)
    for value in values[1:]:
        torch.maximum(second, torch.minimum(first, value), out=second)
        torch.maximum(first, value, out=first)
    return first - second


def tiles_with(open_voxels: torch.Tensor, tiled: TiledImage) -> list[Tile]:
    """The tiles that at least one open voxel depends on.

    Args:
        open_voxels: (*spatial) bool, at the image's own resolution, on the network's axes.
        tiled: the image at the network's resolution.

    Returns:
        The tiles in their original order. An open voxel is interpolated from several voxels of the network's grid,
        and every tile that covers one of these is included.
    """
    cropped_shape = [part.stop - part.start for part in bounds(tiled)]
    needed = functional.adaptive_max_pool3d(open_voxels[None].float(), cropped_shape)
    if list(open_voxels.shape) != cropped_shape:  # interpolation reaches to the neighbours
        needed = functional.max_pool3d(needed, 3, stride=1, padding=1)
    padded = torch.zeros(tiled.image.shape[1:], dtype=torch.bool, device=open_voxels.device)
    padded[tuple(bounds(tiled))] = needed[0] > 0
    return [tile for tile in tiled.tiles if padded[tile].any()]


def bounds(tiled: TiledImage) -> Sequence[slice]:
    """Where the image lies within its padding, one slice per axis."""
    return [slice(*part.indices(size)) for part, size in zip(tiled.crop, tiled.image.shape[1:], strict=True)]
