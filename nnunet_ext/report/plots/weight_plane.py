"""The path of a Cyclical training through the plane of its samples."""

from __future__ import annotations

from statistics import fmean

from markupsafe import Markup

from nnunet_ext.report.numbers import percent
from nnunet_ext.report.overlays import label_colour
from nnunet_ext.report.plots.frame import Frame, Scale
from nnunet_ext.report.plots.svg import drawing, element, line_path
from nnunet_ext.report.weight_map import WeightMap


def weight_plane(fold: str, weights: WeightMap) -> Markup:
    """Samples coloured by cycle and joined in order of training, in the same unit along both axes."""
    frame = equal_frame(weights)
    points = [frame.at(float(x), float(y)) for x, y in weights.points]
    first, second = weights.explained
    parts = frame.axes(f"component 1 ({percent(first)} of the variance)", f"component 2 ({percent(second)})")
    parts.append(element("path", d=line_path(points), class_="trail"))
    for (x, y), cycle, epoch in zip(points, weights.cycles, weights.epochs, strict=True):
        title = element("title", f"cycle {cycle}, epoch {epoch}")
        parts.append(
            element("circle", title, cx=x, cy=y, r=4, class_="sample", style=f"fill:{label_colour(cycle + 1)}")
        )
    for cycle in sorted(set(weights.cycles)):
        own = [point for point, other in zip(points, weights.cycles, strict=True) if other == cycle]
        middle, top = fmean(x for x, _ in own), min(y for _, y in own)
        parts.append(element("text", f"cycle {cycle}", x=middle, y=top - 9, class_="direct", text_anchor="middle"))
    label = (
        f"{len(points)} samples of the weights of {fold} in {len(set(weights.cycles))} cycles, on two axes that "
        f"explain {percent(first + second)} of their variance."
    )
    return drawing(frame.width, frame.height, label, parts)


def equal_frame(weights: WeightMap) -> Frame:
    """A frame around the points with as many pixels a unit along x as along y."""
    empty = Frame(Scale(0, 1), Scale(0, 1), height=320)
    (left, bottom), (right, top) = empty.at(0, 0), empty.at(1, 1)
    low, high = weights.points.min(axis=0), weights.points.max(axis=0)
    unit = max((high[0] - low[0]) / (right - left), (high[1] - low[1]) / (bottom - top)) * 1.2  # a pixel's length
    halves = unit * (right - left) / 2, unit * (bottom - top) / 2
    x, y = (
        Scale(float(middle - half), float(middle + half))
        for middle, half in zip((low + high) / 2, halves, strict=True)
    )
    return Frame(x, y, height=320)
