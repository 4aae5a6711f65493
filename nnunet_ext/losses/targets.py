"""nnU-Net's targets in the form that losses use: the truth, the voxels that count, and the grid.

For classes, nnU-Net's target is one channel of labels; for regions it has one channel per region. Ignored voxels have
the ignore label in the first case, and are marked by an additional last channel in the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Target(NamedTuple):
    """A target and the voxels that count.

    Attributes:
        truth: int64 labels (B, 1, *spatial), or regions (B, regions, *spatial) as fp32 zeros and ones.
        counted: (B, 1, *spatial) fp32, 0 where a voxel is ignored and 1 elsewhere; None if all voxels count.
    """

    truth: Tensor
    counted: Tensor | None


def without_ignored(target: Tensor, *, regions: bool = False, ignore_label: int | None = None) -> Target:
    """Splits nnU-Net's target into the truth and the voxels that count.

    Args:
        target: labels (B, 1, *spatial) of any number type; for regions zeros and ones (B, regions, *spatial), or
            (B, regions + 1, *spatial) with an ignore label.
        regions: whether the target has one channel per region.
        ignore_label: the label of ignored voxels, which become background; for regions, any number means that the
            last channel marks them.
    """
    if regions:
        if ignore_label is None:
            return Target(target.float(), None)
        return Target(target[:, :-1].float(), (~target[:, -1:].bool()).float())
    labels = target.long()
    if ignore_label is None:
        return Target(labels, None)
    counted = labels != ignore_label
    return Target(labels.where(counted, 0), counted.float())


def truth_by_output(target: Target, outputs: int, *, regions: bool = False) -> Tensor:
    """The truth of each output of the network, (B, outputs, *spatial) as fp32 zeros and ones."""
    return target.truth if regions else one_hot(target.truth, outputs)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """One-hot encoding of int64 labels (B, 1, *spatial): (B, classes, *spatial) as fp32 zeros and ones."""
    shape = (labels.shape[0], classes, *labels.shape[2:])
    return torch.zeros(shape, device=labels.device).scatter_(1, labels, 1.0)


def probabilities_of(logits: Tensor, *, regions: bool = False) -> Tensor:
    """Probabilities of logits (B, C, *spatial), always in fp32: softmax, or sigmoid for regions."""
    return torch.sigmoid(logits.float()) if regions else torch.softmax(logits.float(), dim=1)


def target_on_grid(target: Tensor, logits: Tensor) -> Tensor:
    """A target (B, channels, *spatial) resampled to the logits' grid by nearest neighbour, in its own type."""
    grid = logits.shape[2:]
    if target.shape[2:] == grid:
        return target
    return F.interpolate(target.float(), size=grid, mode="nearest-exact").to(target.dtype)


def padded(values: Tensor, multiple: Sequence[int]) -> Tensor:
    """Values (B, channels, *spatial) with zeros behind them along each axis, so that their size is a multiple.

    Zero is what nnU-Net pads images and labels with, and padding on one side leaves each voxel at its index.
    """
    missing = [-length % step for length, step in zip(values.shape[2:], multiple, strict=True)]
    if not any(missing):
        return values
    return F.pad(values, [pad for after in reversed(missing) for pad in (0, after)])  # the last axis first


def require_fitting(logits: Tensor, truth: Tensor, *, regions: bool) -> None:
    """Raises ValueError unless logits (B, C, *spatial) have voxels and the truth, without ignore channel, fits."""
    if not logits.numel():
        raise ValueError(f"A batch must have at least one voxel; found logits of shape {tuple(logits.shape)}.")
    channels = logits.shape[1] if regions else 1
    expected = (logits.shape[0], channels, *logits.shape[2:])
    if tuple(truth.shape) != expected:
        raise ValueError(
            f"Logits of shape {tuple(logits.shape)} need a target of shape {expected}, not counting an ignore "
            f"channel; found {tuple(truth.shape)}."
        )


class Foreground(NamedTuple):
    """Probabilities and truth of the foreground outputs, with ignored voxels set to 0 in both.

    Attributes:
        p: (B, F, *spatial), fp32: all classes but the background, or all regions.
        g: (B, F, *spatial), fp32 zeros and ones.
        counted: (B, 1, *spatial), fp32, 0 where a voxel is ignored; None if all count.
        present: (B, F), whether the patch has the class or region.
    """

    p: Tensor
    g: Tensor
    counted: Tensor | None
    present: Tensor


@dataclass(frozen=True)
class OutputForm:
    """How a dataset's targets are to be read.

    Attributes:
        regions: the outputs are regions with a sigmoid each, not classes with one softmax.
        ignore_label: for classes, the label of voxels that do not count; for regions any number says that the
            target's last channel marks them. None: all voxels count.
    """

    regions: bool = False
    ignore_label: int | None = None

    def target(self, target: Tensor) -> Target:
        """A target of nnU-Net's without its ignored voxels."""
        return without_ignored(target, regions=self.regions, ignore_label=self.ignore_label)

    def truth(self, logits: Tensor, target: Tensor) -> Target:
        """What a perfect network would say at each of its outputs, (B, C, *spatial), and which voxels count.

        Args:
            logits: (B, C, *spatial).
            target: nnU-Net's, see `without_ignored`.

        Raises:
            ValueError: if the shapes do not fit.
        """
        known = self.target(target)
        require_fitting(logits, known.truth, regions=self.regions)
        return Target(truth_by_output(known, logits.shape[1], regions=self.regions), known.counted)

    def of_foreground(self, values: Tensor) -> Tensor:
        """Values (B, C, *spatial) of all outputs without those of the background: (B, F, *spatial)."""
        return values if self.regions else values[:, 1:]

    def foreground(self, logits: Tensor, target: Tensor) -> Foreground:
        """What terms of the foreground compute with.

        Args:
            logits: (B, C, *spatial).
            target: nnU-Net's, see `without_ignored`.

        Raises:
            ValueError: if the shapes do not fit.
        """
        g, counted = self.truth(logits, target)
        p, g = (self.of_foreground(values) for values in (probabilities_of(logits, regions=self.regions), g))
        if counted is not None:
            p, g = p * counted, g * counted
        return Foreground(p, g, counted, g.flatten(start_dim=2).any(dim=2))

    def masks(self, target: Tensor, outputs: int) -> Tensor:
        """The foreground of one patch's target, as a loader has it.

        Args:
            target: (channels, *spatial), nnU-Net's.
            outputs: of the network.

        Returns:
            (F, *spatial), boolean, False where a voxel is ignored.
        """
        known = self.target(target[None])
        g = self.of_foreground(truth_by_output(known, outputs, regions=self.regions))
        return (g if known.counted is None else g * known.counted)[0].bool()


def mean_of_counted(values: Tensor, counted: Tensor | None) -> Tensor:
    """The mean of values (B, 1, *spatial) over the voxels that count, all of them for None; 0 if none does."""
    return values.mean() if counted is None else (counted * values).sum() / counted.sum().clamp_min(1)


def mean_of_present(values: Tensor, present: Tensor) -> Tensor:
    """The mean of values (B, F) over the structures that each patch has; 0 without a gradient if there are none."""
    kept = torch.where(present, values, torch.zeros_like(values))
    return kept.sum() / present.sum().clamp_min(1)
