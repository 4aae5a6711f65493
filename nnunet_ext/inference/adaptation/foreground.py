"""What an adaptation looks at: the predicted foreground, its neighbourhood, and how certain the network is there."""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def foreground_of(logits: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """Where a network predicts any foreground: logits (C, *spatial) to bool (*spatial)."""
    return (logits > 0).any(0) if regions else logits.argmax(0) > 0


def near(foreground: torch.Tensor, margin: int, axes: int) -> torch.Tensor:
    """The foreground and all voxels at most `margin` voxels away from it along each axis.

    Args:
        foreground: bool, with three spatial axes.
        margin: in voxels.
        axes: number of axes, counted from the last, along which it grows; 2 stays within a slice.
    """
    grown = foreground[None].float()
    for axis in range(3 - axes, 3):  # one axis at a time: a cube of 11 voxels a side would be 121 times as slow
        kernel, padding = [1, 1, 1], [0, 0, 0]
        kernel[axis], padding[axis] = 2 * margin + 1, margin
        grown = functional.max_pool3d(grown, kernel, stride=1, padding=padding)
    return grown[0] > 0


def entropy_of(logits: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """Entropy of logits (C, *spatial) as a share of the largest, (*spatial), with a finite gradient everywhere.

    It is that of the classes, or the mean of the regions' binary entropies.
    """
    if regions:
        no, yes = functional.logsigmoid(-logits), functional.logsigmoid(logits)
        return -(yes.exp() * yes + no.exp() * no).mean(0) / math.log(2)
    log_probabilities = torch.log_softmax(logits, 0)
    return -(log_probabilities.exp() * log_probabilities).sum(0) / math.log(len(logits))


def confidence_of(logits: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """Probability of the predicted class of logits (C, N), or mean over the regions of that of yes or no, (N)."""
    if regions:
        return torch.sigmoid(logits.abs()).mean(0)
    return torch.softmax(logits, 0).amax(0)
