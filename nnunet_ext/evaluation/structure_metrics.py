"""The figures of one structure in one case: a table with one row per column of `metrics.csv`.

A structure that neither truth nor prediction has is judged by one rule in all of its figures, that of `--absent`. The
metrics by themselves have no single rule, nor has the literature: Dice is usually not defined there, a distance is 0,
a surface Dice is 1. A structure that one of the two has is always judged: Dice 0, and the image's diagonal as
distance. A case without any structure has no mean Dice with "leave-out" and counts as the largest risk in failure
detection; with "perfect" it counts as none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan
from typing import Literal

import numpy as np

from nnunet_ext.boxes import bounding_box
from nnunet_ext.evaluation.error_parts import ErrorParts, error_parts
from nnunet_ext.evaluation.label_maps import LabelMapPair
from nnunet_ext.evaluation.lesions import LesionDetection, detect_lesions
from nnunet_ext.evaluation.overlap_counts import OverlapCounts
from nnunet_ext.evaluation.results import Figures
from nnunet_ext.evaluation.surface import hausdorff_distances_mm, normalised_surface_dice
from nnunet_ext.evaluation.volume import relative_volume_error, volume_error_ml, voxel_volume_ml
from nnunet_ext.labels import Region
from nnunet_ext.options import AbsentRule, MetricOptions

Better = Literal["higher", "lower", "closer to 0"]


@dataclass(frozen=True)
class StructurePair:
    """One structure in the truth and in the prediction of a case. What several metrics share is computed once.

    Attributes:
        prediction: boolean, (D, H, W), for a 2D image (H, W); only the bounding box where both have the structure.
        truth: boolean, the same shape.
        spacing_mm: voxel spacing along these axes in mm.
        voxel_ml: volume of a voxel in ml.
        counts: counts over all voxels of the image that count.
        options: settings of the metrics.
    """

    prediction: np.ndarray
    truth: np.ndarray
    spacing_mm: tuple[float, ...]
    voxel_ml: float
    counts: OverlapCounts
    options: MetricOptions

    @cached_property
    def hausdorff_mm(self) -> tuple[float, float]:
        """The largest distance and its 95th percentile."""
        largest, percentile = hausdorff_distances_mm(
            self.prediction, self.truth, self.spacing_mm, percentiles=(None, 95)
        )
        return largest, percentile

    @cached_property
    def lesions(self) -> LesionDetection:
        """The connected components that were found, missed or spurious."""
        return detect_lesions(self.prediction, self.truth)

    @cached_property
    def errors(self) -> ErrorParts:
        """The wrong voxels by part of the error."""
        return error_parts(self.prediction, self.truth)


@dataclass(frozen=True)
class StructureMetric:
    """One column of `metrics.csv`.

    Attributes:
        column: its name.
        figure: computes it for a structure, and defines its value for an empty mask.
        better: which direction is better, for ranks; None if neither.
        perfect: its value with `--absent perfect` where neither truth nor prediction has the structure; it is NaN
            there with `--absent leave-out`. None for a column that is a count.
        values: what it can be, with its unit; for the reference.
        meaning: what it is, for the reference.
    """

    column: str
    figure: Callable[[StructurePair], float]
    better: Better | None = None
    perfect: float | None = None
    values: str = ""
    meaning: str = ""


def surface_dice(pair: StructurePair) -> float:
    """NSD at the tolerance of the options."""
    tolerance_mm = pair.options.nsd_tolerance_mm
    return normalised_surface_dice(pair.prediction, pair.truth, pair.spacing_mm, tolerance_mm=tolerance_mm)


# fmt: off
STRUCTURE_METRICS: tuple[StructureMetric, ...] = (
    StructureMetric("dice", lambda pair: pair.counts.dice, "higher", perfect=1.0,
                    values="0 to 1", meaning="2TP/(2TP + FP + FN), as in nnU-Net"),
    StructureMetric("iou", lambda pair: pair.counts.iou, "higher", perfect=1.0,
                    values="0 to 1", meaning="TP/(TP + FP + FN), as in nnU-Net"),
    StructureMetric("hd95_mm", lambda pair: pair.hausdorff_mm[1], "lower", perfect=0.0,
                    values="0 to the image's diagonal, mm", meaning="95th percentile of the surface distances"),
    StructureMetric("hd_mm", lambda pair: pair.hausdorff_mm[0], "lower", perfect=0.0,
                    values="0 to the image's diagonal, mm", meaning="largest surface distance"),
    StructureMetric("nsd", surface_dice, "higher", perfect=1.0,
                    values="0 to 1", meaning="surface Dice at `--nsd-tolerance`"),
    StructureMetric("volume_ml", lambda pair: (pair.counts.tp + pair.counts.fp) * pair.voxel_ml,
                    values="from 0, ml", meaning="volume of the prediction"),
    StructureMetric("true_volume_ml", lambda pair: (pair.counts.tp + pair.counts.fn) * pair.voxel_ml,
                    values="from 0, ml", meaning="volume of the truth"),
    StructureMetric("volume_error_ml", lambda pair: volume_error_ml(pair.prediction, pair.truth, pair.voxel_ml),
                    "closer to 0", perfect=0.0,
                    values="ml", meaning="volume of the prediction minus that of the truth"),
    StructureMetric("relative_volume_error", lambda pair: relative_volume_error(pair.prediction, pair.truth),
                    "closer to 0", perfect=0.0,
                    values="from -1", meaning="volume error divided by the true volume; not defined if that is 0"),
    StructureMetric("lesion_f1", lambda pair: pair.lesions.f1, "higher", perfect=1.0,
                    values="0 to 1", meaning="F1 of connected components"),
    StructureMetric("lesions", lambda pair: pair.lesions.found + pair.lesions.missed,
                    values="from 0", meaning="connected components of the truth"),
    StructureMetric("lesions_missed", lambda pair: pair.lesions.missed, "lower",
                    values="from 0", meaning="those without a voxel in common with the prediction"),
    StructureMetric("lesions_spurious", lambda pair: pair.lesions.spurious, "lower",
                    values="from 0", meaning="predicted ones without a voxel in common with the truth"),
    StructureMetric("missed_voxels", lambda pair: pair.errors.missed, "lower",
                    values="from 0", meaning="voxels of true components that the prediction does not touch"),
    StructureMetric("spurious_voxels", lambda pair: pair.errors.spurious, "lower",
                    values="from 0", meaning="voxels of predicted components that do not touch the truth"),
    StructureMetric("boundary_voxels", lambda pair: pair.errors.boundary, "lower",
                    values="from 0", meaning="the other wrong voxels, where prediction and truth meet and differ"),
    StructureMetric("absent", lambda pair: int(pair.counts.absent),
                    values="0 or 1", meaning="1 if neither truth nor prediction has the structure"),
)
# fmt: on


def structure_figures(pair: StructurePair, metrics: Sequence[StructureMetric] = STRUCTURE_METRICS) -> Figures:
    """The columns of a structure by name.

    A structure that neither truth nor prediction has follows one rule in all columns, whatever the metrics define.
    """
    return {metric.column: figure_of(pair, metric) for metric in metrics}


def figure_of(pair: StructurePair, metric: StructureMetric) -> float:
    """One column of a structure."""
    if pair.counts.absent and metric.perfect is not None:
        return figure_of_absent(metric.perfect, pair.options.absent)
    return metric.figure(pair)


def structure_pair(
    pair: LabelMapPair, labels: Region, counts: OverlapCounts, counted: np.ndarray, options: MetricOptions
) -> StructurePair:
    """A class or region of two label maps.

    Args:
        pair: truth and prediction, (z, y, x).
        labels: labels that make up the structure.
        counts: its voxel counts.
        counted: (z, y, x), boolean: which voxels count.
        options: settings of the metrics.
    """
    truth, prediction = (np.isin(values, labels) & counted for values in (pair.truth, pair.prediction))
    spacing_mm = pair.spacing_mm
    if len(truth) == 1:  # a 2D image: all voxels of a single slice would be surface
        truth, prediction, spacing_mm = truth[0], prediction[0], spacing_mm[1:]  # (y, x)
    if counts.tp + counts.fn and counts.tp + counts.fp:  # where one is empty, distances are the image's diagonal
        box = bounding_box(truth | prediction)
        truth, prediction = truth[box], prediction[box]
    return StructurePair(prediction, truth, spacing_mm, voxel_volume_ml(pair.spacing_mm), counts, options)


def figure_of_absent(perfect: float, rule: AbsentRule) -> float:
    """What a structure that neither truth nor prediction has counts: its perfect value, or NaN, which is left out."""
    return perfect if rule == "perfect" else nan
