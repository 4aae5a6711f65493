"""The end coefficient: in how many frames the first and the last slices are segmented well (arXiv 2502.09269, Eq. 7).

Networks fail at the base and the apex of a heart, and the mean over a volume hides it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, nan
from statistics import fmean
from typing import Any

import numpy as np

from nnunet_ext.evaluation.overlap import dice, mean_dice
from nnunet_ext.options import END_STACKS, END_VARIANTS, EndStack, EndVariant, require_choice

END_SLICES = 2  # at each end
SPACING_ROUNDING = 1e-3  # relative difference of spacings that count as equal


def end_coefficient(
    predictions: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    *,
    num_classes: int,
    variant: EndVariant = "paper",
    threshold: float = 0.8,
    end_definition: EndStack = "volume",
) -> float:
    """Share of frames whose mean Dice on the end slices is above the threshold, in [0, 1]; larger is better.

    Args:
        predictions: label maps (D, H, W), one per frame.
        labels: the truth, likewise.
        num_classes: number of classes, background included.
        variant: "paper" or "strict", see `end_slice_dice`. Report both: they differ much.
        threshold: a frame counts if its Dice is strictly above this.
        end_definition: "volume" or "foreground", see `end_slice_dice`.

    Returns:
        The share; frames without a counted slice are left out of numerator and denominator. NaN if that leaves none.

    Raises:
        ValueError: if there are no frames, predictions and labels differ in number, the threshold is not a Dice, or
            for what `end_slice_dice` refuses.
    """
    if len(predictions) != len(labels):
        raise ValueError(
            f"Every prediction needs its truth; found {len(predictions)} predictions and {len(labels)} label maps."
        )
    if not predictions:
        raise ValueError("The end coefficient is a share of frames; found none. Give at least one.")
    if not 0 <= threshold <= 1:
        raise ValueError(f"The threshold must be a Dice in [0, 1]; found {threshold}. The paper's is 0.8.")
    values = [
        end_slice_dice(prediction, truth, num_classes=num_classes, variant=variant, end_definition=end_definition)
        for prediction, truth in zip(predictions, labels, strict=True)
    ]
    counted = [value for value in values if not isnan(value)]
    return fmean(value > threshold for value in counted) if counted else nan


def end_slice_dice(
    prediction: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    variant: EndVariant = "paper",
    end_definition: EndStack = "volume",
) -> float:
    """Mean Dice on the first two and the last two slices of one frame.

    Slices are those along the first axis; `stack_axis_of` says which axis to move there. In a stack of fewer than
    four, each counts once.

    Args:
        prediction: label map (D, H, W).
        labels: the truth, of the same shape.
        num_classes: number of classes, background included; labels are 0 to num_classes - 1.
        variant: "paper", as in the released code: the mean over all classes with background, a class that is absent
            in both counts 1. "strict": the mean over the foreground classes that truth or prediction have in the
            slice; a slice without any is left out.
        end_definition: stack whose ends are taken: "volume", as in the paper, all slices; "foreground", from the
            first to the last slice with true foreground.

    Returns:
        The mean over the slices that count. NaN if there are none: in "strict" if truth and prediction are empty at
        both ends, with "foreground" if the truth is empty altogether.

    Raises:
        ValueError: if the shapes differ, are not (D, H, W) or have no voxel, a label is not one of the classes, or a
            choice is unknown.
    """
    require_choice("variant", variant, END_VARIANTS)
    require_choice("end_definition", end_definition, END_STACKS)
    require_label_maps(prediction, labels, num_classes)
    values = [
        slice_dice(prediction[index], labels[index], num_classes=num_classes, variant=variant)
        for index in end_slices(labels, end_definition)
    ]
    counted = [value for value in values if not isnan(value)]
    return fmean(counted) if counted else nan


def slice_dice(prediction: np.ndarray, labels: np.ndarray, *, num_classes: int, variant: EndVariant) -> float:
    """Mean Dice over the classes of one slice (H, W) that the variant counts; NaN if it counts none."""
    if variant == "strict":
        return mean_dice(prediction, labels, range(1, num_classes))
    values = [dice(prediction == label, labels == label) for label in range(num_classes)]
    return fmean(1.0 if isnan(value) else value for value in values)


def end_slices(labels: np.ndarray, end_definition: EndStack) -> list[int]:
    """Indices of the end slices of a label map (D, H, W), ascending and each once."""
    stack = np.arange(len(labels)) if end_definition == "volume" else np.flatnonzero((labels > 0).any(axis=(1, 2)))
    if not stack.size:
        return []
    first, last = int(stack[0]), int(stack[-1])
    ends = {*range(first, first + END_SLICES), *range(last - END_SLICES + 1, last + 1)}
    return sorted(index for index in ends if first <= index <= last)


def stack_axis_of(spacing_mm: Sequence[float]) -> int:
    """The axis along which slices are stacked, if only the spacing is known: the one with the largest.

    Args:
        spacing_mm: voxel spacing along each axis in mm.

    Returns:
        The first of several that are equally large, to a thousandth of a voxel: headers hold rounded numbers.
    """
    largest = max(spacing_mm)
    return next(axis for axis, step in enumerate(spacing_mm) if step >= (1 - SPACING_ROUNDING) * largest)


def planned_stack_axis(plans: Mapping[str, Any]) -> int | None:
    """The axis along which slices are stacked, on the axes of nnU-Net's readers: the first one of the plans.

    Args:
        plans: content of `plans.json`.

    Returns:
        None if they do not say; then it is the axis of each case's largest spacing, see `stack_axis_of`.
    """
    return int(plans["transpose_forward"][0]) if "transpose_forward" in plans else None


def require_label_maps(prediction: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    """Raises ValueError unless both are label maps (D, H, W) of these classes on the same grid."""
    if num_classes < 2:
        raise ValueError(f"num_classes counts the background, so it is at least 2; found {num_classes}.")
    if prediction.shape != labels.shape:
        raise ValueError(f"Both label maps must have the same shape; found {prediction.shape} and {labels.shape}.")
    if labels.ndim != 3 or not labels.size:
        raise ValueError(f"A label map must be (D, H, W) and not empty; found the shape {labels.shape}.")
    for name, values in (("prediction", prediction), ("truth", labels)):
        smallest, largest = values.min(), values.max()
        if smallest < 0 or largest >= num_classes:
            raise ValueError(
                f"Labels of {num_classes} classes must be 0 to {num_classes - 1}; the {name} has {smallest} to "
                f"{largest}. Correct num_classes, or replace the ignore label."
            )
