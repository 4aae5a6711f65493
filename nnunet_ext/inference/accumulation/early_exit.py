"""Members that are not needed any more: where the outcome is settled, the rest of them does not run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch.nn import functional

from nnunet_ext.inference.accumulation.moments import Moments
from nnunet_ext.inference.sliding_window import Tile, TiledImage
from nnunet_ext.options import EARLY_EXITS, EarlyExit, require_choice

ROUNDING = 1e-5  # of a mean in single precision over hundreds of members: what is left may turn out a bit larger


class SettledRule(Protocol):
    """Says where no further member is needed."""

    def settled(self, moments: Moments, weight_left: float) -> torch.Tensor | None:
        """(*spatial) bool; None where the rule cannot say anything yet.

        Args:
            moments: of the members so far.
            weight_left: of the members that are still to come, all together.
        """


class LabelSettled:
    """Where the members to come cannot change the label, whatever they say. The segmentation stays as it is."""

    def settled(self, moments: Moments, weight_left: float) -> torch.Tensor | None:
        """See `SettledRule`; a probability is between 0 and 1, so each member moves a sum by its weight at most."""
        if moments.largest_weight() <= weight_left:
            return None
        weight_left += ROUNDING * moments.largest_weight()
        if not moments.regions:
            return gap_of_two_largest(moments.mean()) * moments.weight() > weight_left
        sums = moments.mean() * moments.weight()  # (R, *spatial)
        half = (moments.weight() + weight_left) / 2
        return ((sums > half) | (sums + weight_left <= half)).all(0)


class InformationSettled:
    """Where the mutual information has stopped moving: a guess that the label will not change either.

    Args:
        tolerance: by how much of its largest value the last member may have moved it.
        least_members: before anything counts as settled.
    """

    def __init__(self, *, tolerance: float = 0.01, least_members: int = 3) -> None:
        self.tolerance = tolerance
        self.least_members = least_members
        self._before: torch.Tensor | None = None

    def settled(self, moments: Moments, weight_left: float) -> torch.Tensor | None:
        """See `SettledRule`; to be asked after every member."""
        now = moments.mutual_information() / moments.largest_entropy()
        before, self._before = self._before, now
        if before is None or moments.members < self.least_members:
            return None
        return (now - before).abs() < self.tolerance


def rule_for(name: EarlyExit) -> SettledRule:
    """A new rule for one case.

    Raises:
        ValueError: if there is no such rule.
    """
    require_choice("early_exit", name, EARLY_EXITS)
    return LabelSettled() if name == "label" else InformationSettled()


def gap_of_two_largest(values: torch.Tensor) -> torch.Tensor:
    """(C, *spatial) to (*spatial): the largest value minus the second largest."""
    first = values[0].clone()
    second = torch.full_like(first, -torch.inf)
    for value in values[1:]:
        torch.maximum(second, torch.minimum(first, value), out=second)
        torch.maximum(first, value, out=first)
    return first - second


def tiles_with(open_voxels: torch.Tensor, tiled: TiledImage) -> list[Tile]:
    """The tiles that a voxel needs which is still open.

    Args:
        open_voxels: (*spatial) bool, of the image at its own resolution, on the axes of the network.
        tiled: the image at the network's resolution.

    Returns:
        In the order of all tiles. A voxel of the image lies between several of the network, and each of those gets
        all of its tiles.
    """
    cropped_shape = [part.stop - part.start for part in bounds(tiled)]
    needed = functional.adaptive_max_pool3d(open_voxels[None].float(), cropped_shape)
    if list(open_voxels.shape) != cropped_shape:  # interpolation reaches to the neighbours
        needed = functional.max_pool3d(needed, 3, stride=1, padding=1)
    padded = torch.zeros(tiled.image.shape[1:], dtype=torch.bool, device=open_voxels.device)
    padded[tuple(bounds(tiled))] = needed[0] > 0
    return [tile for tile in tiled.tiles if padded[tile].any()]


def bounds(tiled: TiledImage) -> Sequence[slice]:
    """Where the image lies in its padding."""
    return [slice(*part.indices(size)) for part, size in zip(tiled.crop, tiled.image.shape[1:], strict=True)]
