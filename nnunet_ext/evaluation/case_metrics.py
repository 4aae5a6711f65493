"""All metrics of one case: of its structures, its probabilities and its uncertainty maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from statistics import fmean

import numpy as np

from nnunet_ext.boxes import bounding_box
from nnunet_ext.evaluation import calibration_error, proper_scores
from nnunet_ext.evaluation.end_slices import end_slice_dice, stack_axis_of
from nnunet_ext.evaluation.label_maps import LabelMapPair
from nnunet_ext.evaluation.overlap_counts import OverlapCounts, joint_histogram, overlap_counts
from nnunet_ext.evaluation.reliability import ReliabilityBins, region_reliability_bins, reliability_bins
from nnunet_ext.evaluation.results import CaseEvaluation, Figures
from nnunet_ext.evaluation.structure_metrics import (
    STRUCTURE_METRICS,
    StructureMetric,
    figure_of_absent,
    structure_figures,
    structure_pair,
)
from nnunet_ext.evaluation.uncertainty_maps import FilteredMap, error_auroc, error_average_precision
from nnunet_ext.evaluation.wrong_slices import SliceFigures, slice_dice, slice_scores
from nnunet_ext.labels import Region
from nnunet_ext.options import END_VARIANTS, AbsentRule, MetricOptions


@dataclass(frozen=True)
class Judgement:
    """How the cases of a dataset are evaluated.

    Attributes:
        structures: name of every foreground class or region to its labels, in the order of the network's outputs.
        regions: whether the structures are regions; they may overlap, and probabilities have no background.
        ignore_label: voxels with this label in the truth are left out of all metrics.
        stack_axis: along which slices are stacked, on the axes of the label maps; None takes the one of the largest
            spacing, case by case.
        metrics: settings of the metrics.
        structure_metrics: the columns of each structure.
    """

    structures: Mapping[str, Region]
    regions: bool = False
    ignore_label: int | None = None
    stack_axis: int | None = None
    metrics: MetricOptions = field(default_factory=MetricOptions)
    structure_metrics: Sequence[StructureMetric] = STRUCTURE_METRICS


def evaluate_case(
    case: str,
    pair: LabelMapPair,
    judgement: Judgement,
    *,
    probabilities: np.ndarray | None = None,
    maps: Mapping[str, np.ndarray] | None = None,
) -> CaseEvaluation:
    """Evaluates one prediction.

    Args:
        case: its name.
        pair: truth and prediction, (z, y, x).
        judgement: how it is evaluated.
        probabilities: (C, z, y, x), over classes, background included, or over regions.
        maps: name to an uncertainty map, (z, y, x); `confidence` is 1 where the network is
            confident, as `predict` writes it.

    Returns:
        The evaluation, with nnU-Net's own metrics by structure in `stock`.
    """
    structures, ignore_label, regions = judgement.structures, judgement.ignore_label, judgement.regions
    counted = np.ones(pair.truth.shape, dtype=bool) if ignore_label is None else pair.truth != ignore_label
    histogram = joint_histogram(pair.truth, pair.prediction)
    counts = {
        name: overlap_counts(histogram, labels, ignore_label=ignore_label) for name, labels in structures.items()
    }
    figures = {
        name: structure_figures(
            structure_pair(pair, labels, counts[name], counted, judgement.metrics), judgement.structure_metrics
        )
        for name, labels in structures.items()
    }
    case_figures: Figures = {
        "mean_dice": mean_dice(counts.values(), judgement.metrics.absent),
        "absent_structures": sum(entry.absent for entry in counts.values()),
    }
    if not regions:
        case_figures |= end_slice_figures(pair, counted, judgement)
    box = bounding_box((pair.truth > 0) & counted)
    bins = None
    if probabilities is not None:
        cropped, truth, mask = in_box(box, probabilities, pair.truth, counted)
        truth_masks = masks_of(truth, structures) if regions else truth
        case_figures |= calibration_figures(cropped, truth_masks, mask, regions=regions)
        bins = case_bins(cropped, truth_masks, mask, regions=regions) if box is not None else None
    if maps:
        case_figures |= map_figures(maps, pair, counted, counts, judgement)
    return CaseEvaluation(
        case=case,
        structures=figures,
        figures=case_figures,
        stock={name: entry.as_stock() for name, entry in counts.items()},
        reliability=bins,
        counts=counts,
        slices=slice_figures(maps, pair, counted, stack_axis_in(pair, judgement)) if maps else None,
    )


def mean_dice(counts: Iterable[OverlapCounts], absent: AbsentRule) -> float:
    """Mean Dice of the structures of one case; NaN if there is none to judge.

    Args:
        counts: of each structure.
        absent: whether structures that neither truth nor prediction has are left out or have Dice 1.
    """
    return nan_mean([figure_of_absent(1.0, absent) if entry.absent else entry.dice for entry in counts])


def end_slice_figures(pair: LabelMapPair, counted: np.ndarray, judgement: Judgement) -> Figures:
    """Dice of the end slices in both variants; nothing for a single slice, which has no ends."""
    axis = stack_axis_in(pair, judgement)
    if pair.truth.shape[axis] < 2:
        return {}
    classes = 1 + max(label for labels in judgement.structures.values() for label in labels)
    prediction, truth = (
        np.moveaxis(np.where(counted, values, 0), axis, 0) for values in (pair.prediction, pair.truth)
    )  # (slices, *in_plane)
    return {
        f"end_slice_dice_{variant}": end_slice_dice(
            prediction, truth, num_classes=classes, variant=variant, end_definition=judgement.metrics.end_stack
        )
        for variant in END_VARIANTS
    }


# Columns of `case_metrics.csv`: functions of probabilities (C, z, y, x), the truth and `mask`, the voxels that count.
ProbabilityMetrics = dict[str, Callable[..., float]]
CLASS_METRICS: ProbabilityMetrics = {
    "ece": calibration_error.expected_calibration_error,
    "class_wise_ece": calibration_error.class_wise_ece,
    "ace": calibration_error.average_calibration_error,
    "brier": proper_scores.brier_score,
    "nll": proper_scores.negative_log_likelihood,
}
REGION_METRICS: ProbabilityMetrics = {
    "ece": calibration_error.region_expected_calibration_error,
    "brier": proper_scores.region_brier_score,
    "nll": proper_scores.region_negative_log_likelihood,
}


def calibration_figures(probabilities: np.ndarray, truth: np.ndarray, mask: np.ndarray, *, regions: bool) -> Figures:
    """Calibration metrics in the bounding box of the true foreground; NaN if there is none."""
    metrics = REGION_METRICS if regions else CLASS_METRICS
    return {name: metric(probabilities, truth, mask=mask) for name, metric in metrics.items()}


def case_bins(probabilities: np.ndarray, truth: np.ndarray, mask: np.ndarray, *, regions: bool) -> ReliabilityBins:
    """The bins of a reliability diagram; regions are pooled."""
    if not regions:
        return reliability_bins(probabilities, truth, mask=mask)
    bins = region_reliability_bins(probabilities, truth, mask=mask)
    return sum(bins[1:], bins[0])


def map_figures(
    maps: Mapping[str, np.ndarray],
    pair: LabelMapPair,
    counted: np.ndarray,
    counts: Mapping[str, OverlapCounts],
    judgement: Judgement,
) -> Figures:
    """Whether each map is bright where the segmentation is wrong.

    In the bounding box of true and predicted foreground together: a wrong voxel outside the truth counts as well.
    All NaN if neither has foreground, except with `--absent perfect`, see `qu_brats_figures`.
    """
    box = bounding_box(((pair.truth > 0) | (pair.prediction > 0)) & counted)
    figures: Figures = {}
    for name, values in maps.items():
        uncertainty, truth, prediction, mask = in_box(box, values, pair.truth, pair.prediction, counted)
        uncertainty = uncertainty_of(name, uncertainty)
        wrong = prediction != truth
        figures[f"{name}_error_auroc"] = error_auroc(uncertainty, wrong, mask=mask)
        figures[f"{name}_error_ap"] = error_average_precision(uncertainty, wrong, mask=mask)
        found = qu_brats_figures(FilteredMap(uncertainty, mask=mask), prediction, truth, counts, judgement)
        figures |= {f"{name}_{key}": value for key, value in found.items()}
    return figures


def qu_brats_figures(
    filtered: FilteredMap,
    prediction: np.ndarray,
    truth: np.ndarray,
    counts: Mapping[str, OverlapCounts],
    judgement: Judgement,
) -> Figures:
    """QU-BraTS score and gain, means over the structures, one of which is held at a time.

    A structure that neither truth nor prediction has follows `--absent`: left out, or "perfect". Its score is 1 then,
    that of an all-zero map with Dice 1, and its gain 0, as there is nothing to gain; whatever the map says.

    Args:
        filtered: the map.
        prediction: label map of the same shape.
        truth: label map of the same shape.
        counts: of each structure.
        judgement: how the case is evaluated.
    """
    scores: list[float] = []
    gains: list[float] = []
    for name, labels in judgement.structures.items():
        if counts[name].absent:
            scores.append(figure_of_absent(1.0, judgement.metrics.absent))
            gains.append(figure_of_absent(0.0, judgement.metrics.absent))
        else:
            curves = filtered.curves(np.isin(prediction, labels), np.isin(truth, labels))
            scores.append(curves.score)
            gains.append(curves.gain)
    return {"qu_brats": nan_mean(scores), "qu_brats_gain": nan_mean(gains)}


def uncertainty_of(name: str, values: np.ndarray) -> np.ndarray:
    """A map so that larger is more uncertain."""
    return 1 - values if name == "confidence" else values


def stack_axis_in(pair: LabelMapPair, judgement: Judgement) -> int:
    """The axis along which the slices of a case are stacked."""
    return stack_axis_of(pair.spacing_mm) if judgement.stack_axis is None else judgement.stack_axis


def slice_figures(maps: Mapping[str, np.ndarray], pair: LabelMapPair, counted: np.ndarray, axis: int) -> SliceFigures:
    """Dice of each slice, and how wrong each map calls it; voxels that do not count are right and background."""
    foreground = (pair.prediction > 0) & counted
    return SliceFigures(
        dice=slice_dice((pair.prediction != pair.truth) & counted, foreground, axis=axis),
        scores={
            name: slice_scores(np.where(counted, uncertainty_of(name, values), 0), foreground, axis=axis)
            for name, values in maps.items()
        },
    )


def in_box(box: tuple[slice, ...] | None, *arrays: np.ndarray) -> list[np.ndarray]:
    """Each array (..., z, y, x) cropped to a box of (z, y, x); empty if there is none."""
    part = box if box is not None else (slice(0, 0),) * 3
    index = (..., *part)
    return [array[index] for array in arrays]


def masks_of(labels: np.ndarray, structures: Mapping[str, Region]) -> np.ndarray:
    """(R, z, y, x), boolean: the voxels of each region."""
    return np.stack([np.isin(labels, region) for region in structures.values()])


def nan_mean(values: list[float]) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    present = [value for value in values if not isnan(value)]
    return fmean(present) if present else nan
