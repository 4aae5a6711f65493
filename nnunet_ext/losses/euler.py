"""A differentiable Euler characteristic as a loss: objects minus tunnels plus cavities, in windows of the patch.

The error of the Euler characteristic is a figure of Li et al. (IEEE TMI 2025, arXiv 2507.23763); this loss on it is
ours. Of zeros and ones it is the characteristic exactly: the count of vertices, less edges, plus faces, less cubes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from nnunet_ext.losses.targets import OutputForm, mean_of_present

Connectivity = Literal["faces", "corners"]


@dataclass(frozen=True)
class EulerTerm:
    """Mean over structures and windows of |chi(p) - chi(g)|.

    It is 0 for a perfect prediction; a class that a patch lacks has neither value nor gradient. It says nothing of
    where a structure lies, so its weight should be small and come late.

    Attributes:
        form: of the target.
        window: its side in voxels; along a shorter axis of the patch it is as long as the axis.
        connectivity: see `soft_characteristic`.
    """

    form: OutputForm
    window: int = 16
    connectivity: Connectivity = "faces"

    def __call__(self, logits: Tensor, target: Tensor, *, epoch: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """See `LossTerm`."""
        found = self.form.foreground(logits, target)
        of_p, of_g = (
            soft_characteristic(blocks_of(values, self.window), self.connectivity) for values in (found.p, found.g)
        )  # (B F windows)
        errors = (of_p - of_g).abs().unflatten(0, (*found.present.shape, -1))  # (B, F, windows)
        return mean_of_present(errors.mean(dim=2), found.present)


def blocks_of(values: Tensor, window: int) -> Tensor:
    """Values (B, F, *spatial) in blocks (B F windows, *sides) side by side, with zeros where they end earlier."""
    lengths = values.shape[2:]
    sides = [min(window, length) for length in lengths]
    counts = [-(-length // side) for length, side in zip(lengths, sides, strict=True)]
    missing = [count * side - length for count, side, length in zip(counts, sides, lengths, strict=True)]
    padded = F.pad(values, [number for amount in reversed(missing) for number in (0, amount)])
    axes = len(lengths)
    split = padded.flatten(end_dim=1).reshape(
        -1, *(number for pair in zip(counts, sides, strict=True) for number in pair)
    )  # (B F, windows of axis 1, side 1, windows of axis 2, ...)
    order = [0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2)]
    return split.permute(order).flatten(end_dim=axes)  # (B F windows, *sides)


def soft_characteristic(values: Tensor, connectivity: Connectivity = "faces") -> Tensor:
    """The Euler characteristic of volumes (N, *spatial), one to three spatial axes: (N,).

    "faces" connects voxels that share a face. A vertex is a voxel, an edge joins two neighbours, a face four and a
    cube eight; each counts the product of what it joins.

    "corners" connects voxels that share a corner. A voxel is a closed cube, and its faces, edges and vertices count
    1 minus the product of 1 - p over the voxels that have them.
    """
    axes = range(1, values.ndim)
    if connectivity == "faces":
        return sum_of_cells(
            lambda chosen: (-1) ** len(chosen) * joined(values, chosen).flatten(start_dim=1).sum(dim=1), axes
        )
    empty = F.pad(1 - values, [1, 1] * len(axes), value=1.0)

    def present(chosen: tuple[int, ...]) -> Tensor:
        inner = empty
        for axis in axes:
            if axis not in chosen:
                inner = inner.narrow(axis, 1, values.shape[axis])
        sign = (-1) ** (len(axes) - len(chosen))
        return sign * (1 - joined(inner, chosen)).flatten(start_dim=1).sum(dim=1)

    return sum_of_cells(present, axes)


def sum_of_cells(count: Callable[[tuple[int, ...]], Tensor], axes: range) -> Tensor:
    """The sum of what cells of each kind count, a kind being the axes along which they join two voxels."""
    kinds = [chosen for number in range(len(axes) + 1) for chosen in combinations(axes, number)]
    total = count(kinds[0])
    for chosen in kinds[1:]:
        total = total + count(chosen)
    return total


def joined(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Products of neighbours along each of the axes, which become one shorter."""
    for axis in axes:
        length = values.shape[axis] - 1
        values = values.narrow(axis, 0, length) * values.narrow(axis, 1, length)
    return values
