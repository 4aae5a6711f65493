"""These cases' confidences beside those of the training folds: a shift of the data is visible here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from nnunet_ext.report.plots.frame import Frame, Scale, scale_around
from nnunet_ext.report.plots.svg import Point, drawing, element, line_path

BINS = 16


def comparison_histogram(
    training: Sequence[float], cases: Sequence[float], *, name: str, threshold: float | None = None
) -> Markup:
    """Shares of the training folds' cases as filled bars, of these cases as a line.

    Args:
        training: finite, at least one.
        cases: likewise.
        name: of the column.
        threshold: a vertical line.
    """
    x = scale_around([*training, *cases, *([] if threshold is None else [threshold])], margin=0.02)
    edges = np.linspace(x.low, x.high, BINS + 1)
    training_shares = np.histogram(training, edges)[0] / len(training)
    shares = np.histogram(cases, edges)[0] / len(cases)
    frame = Frame(x, Scale(0, float(max(training_shares.max(), shares.max())) * 1.1), height=230)
    parts = frame.axes(name, "share of cases", y_ticks=5)
    for left, right, share in zip(edges[:-1], edges[1:], training_shares, strict=True):
        if share:
            (x1, y1), (x2, y2) = frame.at(left, share), frame.at(right, 0)
            parts.append(element("rect", x=x1 + 0.5, y=y1, width=x2 - x1 - 1, height=y2 - y1, class_="bar"))
    parts.append(element("path", d=line_path(stairs(frame, edges, shares)), class_="line series-2"))
    if threshold is not None:
        parts.append(
            element("path", d=line_path([frame.at(threshold, 0), frame.at(threshold, frame.y.high)]), class_="mark")
        )
    label = (
        f"Histogram of {name}: median {np.median(cases):.3f} in these {len(cases)} cases, {np.median(training):.3f} "
        f"in the {len(training)} cases of the training folds."
    )
    return drawing(frame.width, frame.height, label, parts)


def stairs(frame: Frame, edges: np.ndarray, shares: np.ndarray) -> list[Point]:
    """The outline of a histogram, from the axis and back to it."""
    points = [frame.at(edges[0], 0)]
    for left, right, share in zip(edges[:-1], edges[1:], shares, strict=True):
        points += [frame.at(left, share), frame.at(right, share)]
    return [*points, frame.at(edges[-1], 0)]
