"""The reliability diagram: how often a probability is right."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from nnunet_ext.evaluation.reliability import ReliabilityBins
from nnunet_ext.report.plots.frame import Frame, Scale
from nnunet_ext.report.plots.svg import drawing, element, line_path

MOST_BINS = 20  # that can be told apart


def reliability_diagram(bins: ReliabilityBins) -> Markup:
    """Accuracy over confidence; faint bars tell how many voxels there are, on a logarithmic scale.

    Args:
        bins: with at least one voxel.
    """
    shown = bins.merged(MOST_BINS)
    frame = Frame(Scale(0, 1), Scale(0, 1), height=300)
    filled = shown.counts > 0
    points = [frame.at(x, y) for x, y in zip(shown.mean_confidence[filled], shown.accuracy[filled], strict=True)]
    parts = _count_bars(shown, frame)
    parts += frame.axes("confidence (probability of the chosen class)", "accuracy")
    parts.append(element("path", d=line_path([frame.at(0, 0), frame.at(1, 1)]), class_="reference"))
    parts.append(element("path", d=line_path(points), class_="line series-1"))
    parts += [element("circle", cx=x, cy=y, r=3, class_="dot series-1") for x, y in points]
    label = (
        f"Reliability diagram with an expected calibration error of {bins.expected_error():.3f}. "
        f"Accuracy {shown.accuracy[filled][-1]:.2f} at the highest confidence."
    )
    return drawing(frame.width, frame.height, label, parts)


def _count_bars(bins: ReliabilityBins, frame: Frame) -> list[Markup]:
    heights = np.log10(1 + bins.counts)
    heights = heights / heights.max()
    bars = []
    for index, height in enumerate(heights):
        if height > 0:
            left, top = frame.at(index / len(heights), height)
            right, bottom = frame.at((index + 1) / len(heights), 0)
            title = element("title", f"{bins.counts[index]} voxels")
            bars.append(
                element(
                    "rect", title, x=left + 0.5, y=top, width=right - left - 1, height=bottom - top, class_="faint"
                )
            )
    return bars
