"""The plots of the page with what is written around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from nnunet_ext.evaluation.attention import Row
from nnunet_ext.evaluation.confidences import DIRECTIONS, confidence_of, number_in
from nnunet_ext.evaluation.failure_table import dice_as_judged
from nnunet_ext.report.data import ReportCase, ReportData
from nnunet_ext.report.numbers import column_words, fixed, percent, with_capital
from nnunet_ext.report.plots.histogram import comparison_histogram
from nnunet_ext.report.plots.reliability import reliability_diagram
from nnunet_ext.report.plots.risk_coverage import risk_coverage_plot
from nnunet_ext.report.plots.scatter import scatter_plot
from nnunet_ext.report.plots.training_curve import training_plot
from nnunet_ext.report.plots.weight_plane import weight_plane
from nnunet_ext.report.tables import is_judged


@dataclass(frozen=True)
class PlotFigure:
    """A plot with its title, the legend of its lines and a caption.

    Attributes:
        title: above it.
        plot: SVG.
        legend: class of a key and what it stands for.
        caption: below it.
    """

    title: str
    plot: Markup
    legend: tuple[tuple[str, str], ...]
    caption: str


def evaluation_figures(data: ReportData) -> list[PlotFigure]:
    """Reliability, risk over coverage, and confidence against Dice, as far as they are defined."""
    figures = []
    bins = data.evaluation.reliability if data.evaluation else None
    if bins is not None and bins.counts.any():
        figures.append(
            PlotFigure(
                f"Reliability: ECE {fixed(bins.expected_error(), 4)} over all voxels",
                reliability_diagram(bins),
                (("line-1", "these cases"), ("reference", "perfect"), ("faint", "voxels, log scale")),
                "Below the diagonal the model is over-confident. "
                "All cases together; voxels in the bounding box of the true foreground.",
            )
        )
    column = detection_column(data)
    cases = [case for case in data.judged_cases if is_judged(case.evaluation) and case.row.get(column)]
    if column and cases:
        figures += [_risk_coverage(data, column, cases), _scatter(data, column, cases)]
    return figures


def detection_column(data: ReportData) -> str:
    """The confidence that is drawn: that of the operating point, else the one that orders the page."""
    return data.operating_point.column if data.operating_point else data.order


def histogram_figures(data: ReportData) -> list[PlotFigure]:
    """Confidences of these cases and of the training folds, for every column in which they compare.

    Every training case was predicted by one fold. With several folds only the column of the calibration compares.
    """
    figures = []
    rows = [case.row for case in data.judged_cases]
    for column in DIRECTIONS if data.folds < 2 else [data.judged_column]:
        training, cases = (_values(of_cases, column) for of_cases in (data.training_rows, rows))
        if not training or not cases:
            continue
        point = data.operating_point
        threshold = point.threshold if point and point.column == column else None
        beyond = sum(not min(training) <= value <= max(training) for value in cases)
        figures.append(
            PlotFigure(
                with_capital(column_words(column)),
                comparison_histogram(training, cases, name=column_words(column), threshold=threshold),
                (
                    ("bar", f"training folds ({len(training)})"),
                    ("line-2", f"these cases ({len(cases)})"),
                    *([("mark", "operating point")] if threshold is not None else []),
                ),
                f"{beyond} of {len(cases)} cases lie outside the range of the training folds.",
            )
        )
    return figures


def training_figures(data: ReportData) -> list[PlotFigure]:
    """One a fold."""
    return [
        PlotFigure(
            fold.name.replace("_", " "),
            training_plot(fold.name, fold.training),
            (("line-1", "training loss, rate"), ("line-2", "validation loss"), ("line-3", "pseudo Dice")),
            model.name if len(data.models) > 1 else "",
        )
        for model in data.models
        for fold in model.folds
        if fold.training
    ]


def weight_figures(data: ReportData) -> list[PlotFigure]:
    """One for each fold of a Cyclical training."""
    return [
        PlotFigure(
            f"Samples of the weights, {fold.name.replace('_', ' ')}",
            weight_plane(fold.name, fold.weights),
            (),
            f"{len(fold.weights.cycles)} of {fold.weights.available} samples, joined in training order. The two "
            f"axes explain {percent(sum(fold.weights.explained))} of their variance.",
        )
        for model in data.models
        for fold in model.folds
        if fold.weights
    ]


def _risk_coverage(data: ReportData, column: str, cases: list[ReportCase]) -> PlotFigure:
    point = data.operating_point
    accepted = np.array([point.accepts(case.row) for case in cases]) if point else None
    return PlotFigure(
        f"Risk and coverage by {column_words(column)}",
        risk_coverage_plot(
            _dice(cases), np.array([confidence_of(case.row, column) for case in cases]), accepted=accepted
        ),
        (
            ("line-1", column_words(column)),
            ("line-2 dashed", "best possible order"),
            ("reference", "accept at random"),
            *([("ring", "operating point")] if accepted is not None and accepted.any() else []),
        ),
        "Cases are accepted in order of confidence, the most confident on the left. The lower the curve, the better "
        "the confidence separates good cases from bad ones.",
    )


def _scatter(data: ReportData, column: str, cases: list[ReportCase]) -> PlotFigure:
    point = data.operating_point
    verdicts = [
        verdict for verdict in ("accept", "review", "reject") if any(case.verdict == verdict for case in cases)
    ]
    return PlotFigure(
        f"Dice against {column_words(column)}",
        scatter_plot(
            [case.name for case in cases],
            [case.number(column) for case in cases],
            list(_dice(cases)),
            [case.verdict for case in cases],
            value_name=column_words(column),
            failure_dice=data.failure_dice,
            threshold=point.threshold if point else None,
        ),
        (
            *((f"point {verdict}", verdict) for verdict in verdicts),
            ("mark", f"failure below {data.failure_dice:g}"),
            *([("mark dashed", "operating point")] if point else []),
        ),
        "One point per case; a case whose truth and prediction are both empty has Dice 0 here.",
    )


def _dice(cases: list[ReportCase]) -> np.ndarray:
    return np.array([dice_as_judged(case.evaluation) for case in cases if case.evaluation])


def _values(rows: Sequence[Row], column: str) -> list[float]:
    return [value for value in (number_in(row, column) for row in rows) if math.isfinite(value)]
