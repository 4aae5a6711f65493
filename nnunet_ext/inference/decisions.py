"""From probabilities to labels, as nnU-Net decides."""

from __future__ import annotations

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager


def decided_labels(probabilities: torch.Tensor, labels: LabelManager) -> torch.Tensor:
    """The label map (*spatial) of probabilities (C, *spatial): the most likely class, or regions in their order.

    Returns:
        uint8, or int16 where a label does not fit. Of equally likely classes the first.
    """
    decided = (
        labels.convert_probabilities_to_segmentation(probabilities)
        if labels.has_regions
        else most_likely_class(probabilities)
    )
    return decided.to(label_type(labels))


def label_type(labels: LabelManager) -> torch.dtype:
    """The smallest integers that hold all labels; torch cannot compute with uint16."""
    return torch.uint8 if len(labels.foreground_labels) < 255 else torch.int16


def most_likely_class(probabilities: torch.Tensor) -> torch.Tensor:
    """arg max over the first axis of (C, *spatial); of equal values the first.

    On CPUs this running maximum takes a tenth of the time of `torch.argmax`, which goes through memory voxel by voxel
    when the classes come first.
    """
    if probabilities.device.type != "cpu" or len(probabilities) > 256:
        return probabilities.argmax(0)
    largest = probabilities[0].clone()
    winner = torch.zeros(largest.shape, dtype=torch.uint8)
    for number, probability in enumerate(probabilities[1:], start=1):
        is_larger = (probability > largest).view(torch.uint8)
        winner = torch.maximum(winner, is_larger.mul_(number))  # numbers rise: the latest is the largest
        torch.maximum(largest, probability, out=largest)
    return winner
