"""Confidence against Dice, one point per case."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from nnunet_ext.report.plots.frame import Frame, Scale, scale_around
from nnunet_ext.report.plots.svg import drawing, element, line_path

SHAPES = {"accept": "circle", "review": "triangle", "reject": "square"}  # colour is not the only sign
SIZE = 5.0


def scatter_plot(
    names: Sequence[str],
    values: Sequence[float],
    dice: Sequence[float],
    verdicts: Sequence[str],
    *,
    value_name: str,
    failure_dice: float,
    threshold: float | None = None,
) -> Markup:
    """Dice over a confidence column as it is in the table.

    Args:
        names: of the cases.
        values: finite.
        dice: finite.
        verdicts: `accept`, `review`, `reject` or empty.
        value_name: of the column.
        failure_dice: a horizontal line.
        threshold: a vertical line, if within the plot.
    """
    y = Scale(max(0.0, min(0.9, *dice, failure_dice) - 0.05), 1.0)
    x = scale_around([*values] if threshold is None else [*values, threshold])
    frame = Frame(x, y, height=300)
    parts = frame.axes(value_name, "Dice")
    parts.append(
        element("path", d=line_path([frame.at(x.low, failure_dice), frame.at(x.high, failure_dice)]), class_="mark")
    )
    if threshold is not None:
        parts.append(
            element("path", d=line_path([frame.at(threshold, y.low), frame.at(threshold, 1)]), class_="mark dashed")
        )
    for name, value, case_dice, verdict in zip(names, values, dice, verdicts, strict=True):
        parts.append(marker(*frame.at(value, case_dice), verdict, f"{name}: Dice {case_dice:.3f}"))
    return drawing(frame.width, frame.height, f"Dice over {value_name} of {len(names)} cases.", parts)


def marker(x: float, y: float, verdict: str, title: str) -> Markup:
    """A point whose shape and colour tell the verdict."""
    about = element("title", title)
    css = f"point {verdict or 'no-verdict'}"
    shape = SHAPES.get(verdict, "circle")
    if shape == "square":
        return element("rect", about, x=x - SIZE + 0.5, y=y - SIZE + 0.5, width=9, height=9, class_=css)
    if shape == "triangle":
        corners = f"{x:.1f},{y - 5.5:.1f} {x + 5.5:.1f},{y + 4.5:.1f} {x - 5.5:.1f},{y + 4.5:.1f}"
        return element("polygon", about, points=corners, class_=css)
    return element("circle", about, cx=x, cy=y, r=SIZE, class_=css)
