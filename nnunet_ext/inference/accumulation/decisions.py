"""From logits to probabilities and labels, with nnU-Net's decision rules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_ext.inference.accumulation.slabs import Slab, SlicedVolume, for_each_slab


def class_probabilities(logits: torch.Tensor, labels: LabelManager) -> torch.Tensor:
    """Softmax of (C, *spatial) logits, or the sigmoid for regions, in float32: nnU-Net's `apply_inference_nonlin`.

    On CPUs the softmax is computed class by class: `torch.softmax` over the first axis reads memory voxel by voxel,
    which takes 1.5 times as long.
    """
    if labels.has_regions or logits.device.type != "cpu":
        return labels.apply_inference_nonlin(logits)
    values = torch.sub(logits.float(), logits.amax(0)).exp_()
    return values.div_(values.sum(0))


def decided_labels(probabilities: torch.Tensor, labels: LabelManager) -> torch.Tensor:
    """The label map (*spatial) of probabilities (C, *spatial): the most likely class, or regions painted in order.

    Returns:
        A uint8 tensor, or int16 if a label does not fit. The first of several equally likely classes wins.
    """
    decided = (
        labels.convert_probabilities_to_segmentation(probabilities)
        if labels.has_regions
        else most_likely_class(probabilities)
    )
    return decided.to(label_type(labels))


def label_map(probabilities: SlicedVolume, shape: Sequence[int], labels: LabelManager) -> torch.Tensor:
    """`decided_labels` of a volume (C, *shape), slab by slab, on its device."""
    decided = torch.empty(tuple(shape), dtype=label_type(labels), device=probabilities.device)

    def decide(slab: Slab) -> None:
        decided[slab.where] = decided_labels(slab.values, labels)

    for_each_slab(probabilities, decide)
    return decided


def label_type(labels: LabelManager) -> torch.dtype:
    """The smallest integer type that holds all labels; int16 and not uint16, which torch cannot compute with."""
    return torch.uint8 if len(labels.foreground_labels) < 255 else torch.int16


def most_likely_class(probabilities: torch.Tensor) -> torch.Tensor:
    """arg max over the first axis of (C, *spatial); the first of several equal values wins.

    On CPUs this running maximum takes a tenth of the time of `torch.argmax`, which reads memory voxel by voxel when
    the class axis comes first.
    """
    if probabilities.device.type != "cpu":
        return probabilities.argmax(0)
    largest = probabilities[0].clone()
    winner = torch.zeros_like(largest)  # float32: writing comparisons to bytes takes three times as long
    is_larger = torch.empty_like(largest)
    for number, probability in enumerate(probabilities[1:], start=1):
        torch.gt(probability, largest, out=is_larger)
        torch.maximum(winner, is_larger.mul_(number), out=winner)  # class numbers rise: the latest is the largest
        torch.maximum(largest, probability, out=largest)
    return winner.to(torch.int32)
