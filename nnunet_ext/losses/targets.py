"""nnU-Net's targets in the form that losses compute with: what is true, which voxels count, and on which grid.

nnU-Net has one target of labels for classes, and one channel for each region. Voxels with the ignore label bear that
label in the first form, and are marked in a last channel in the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Target(NamedTuple):
    """A target without its ignored voxels.

    Attributes:
        truth: (B, 1, *spatial) labels, int64, or (B, regions, *spatial), fp32 zeros and ones.
        counted: (B, 1, *spatial), fp32, 0 where a voxel is ignored; None if all count.
    """

    truth: Tensor
    counted: Tensor | None


def without_ignored(target: Tensor, *, regions: bool = False, ignore_label: int | None = None) -> Target:
    """Splits nnU-Net's target into truth and the voxels that count.

    Args:
        target: (B, 1, *spatial) labels of any number type; for regions (B, regions, *spatial) zeros and ones, with an
            ignore label (B, regions + 1, *spatial).
        regions: the target holds one channel per region.
        ignore_label: the label of ignored voxels, which become background; for regions anything but None says that
            the last channel marks them.
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
    """What a perfect network would say at each of its outputs: (B, outputs, *spatial), fp32 zeros and ones."""
    return target.truth if regions else one_hot(target.truth, outputs)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels (B, 1, *spatial), int64, as zeros and ones (B, classes, *spatial), fp32."""
    shape = (labels.shape[0], classes, *labels.shape[2:])
    return torch.zeros(shape, device=labels.device).scatter_(1, labels, 1.0)


def probabilities_of(logits: Tensor, *, regions: bool = False) -> Tensor:
    """What nnU-Net makes of logits (B, C, *spatial), in fp32 whatever they are: softmax, for regions sigmoid."""
    return torch.sigmoid(logits.float()) if regions else torch.softmax(logits.float(), dim=1)


def target_on_grid(target: Tensor, logits: Tensor) -> Tensor:
    """A target (B, channels, *spatial) at the nearest voxels of the logits' grid, in its own type."""
    grid = logits.shape[2:]
    if target.shape[2:] == grid:
        return target
    return F.interpolate(target.float(), size=grid, mode="nearest-exact").to(target.dtype)


def require_fitting(logits: Tensor, truth: Tensor, *, regions: bool) -> None:
    """Raises ValueError unless logits (B, C, *spatial) hold voxels and the truth fits; it has no ignore channel."""
    if not logits.numel():
        raise ValueError(f"A batch must hold at least one voxel; found logits of the shape {tuple(logits.shape)}.")
    channels = logits.shape[1] if regions else 1
    expected = (logits.shape[0], channels, *logits.shape[2:])
    if tuple(truth.shape) != expected:
        raise ValueError(
            f"Logits of the shape {tuple(logits.shape)} need a target of the shape {expected} (an ignore channel not "
            f"counted); found {tuple(truth.shape)}."
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

    def foreground(self, logits: Tensor, target: Tensor) -> Foreground:
        """What terms of the foreground compute with.

        Args:
            logits: (B, C, *spatial).
            target: nnU-Net's, see `without_ignored`.

        Raises:
            ValueError: if the shapes do not fit.
        """
        known = self.target(target)
        require_fitting(logits, known.truth, regions=self.regions)
        p = probabilities_of(logits, regions=self.regions)
        g = truth_by_output(known, logits.shape[1], regions=self.regions)
        if not self.regions:
            p, g = p[:, 1:], g[:, 1:]
        if known.counted is not None:
            p, g = p * known.counted, g * known.counted
        return Foreground(p, g, known.counted, g.flatten(start_dim=2).any(dim=2))

    def masks(self, target: Tensor, outputs: int) -> Tensor:
        """The foreground of one patch's target, as a loader has it.

        Args:
            target: (channels, *spatial), nnU-Net's.
            outputs: of the network.

        Returns:
            (F, *spatial), boolean, False where a voxel is ignored.
        """
        known = self.target(target[None])
        g = truth_by_output(known, outputs, regions=self.regions)
        g = g if self.regions else g[:, 1:]
        return (g if known.counted is None else g * known.counted)[0].bool()


def mean_of_present(values: Tensor, present: Tensor) -> Tensor:
    """The mean of values (B, F) over the structures that each patch has; 0 without a gradient if there are none."""
    kept = torch.where(present, values, torch.zeros_like(values))
    return kept.sum() / present.sum().clamp_min(1)
