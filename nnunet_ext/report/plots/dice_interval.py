"""The Dice that is predicted of a case, with its interval and, if it is known, the true one."""

from __future__ import annotations

import math

from markupsafe import Markup

from nnunet_ext.report.plots.svg import drawing, element

WIDTH, HEIGHT, ROOM = 240.0, 36.0, 8.0


def dice_interval(predicted: float, low: float, high: float, true: float) -> Markup:
    """A line from 0 to 1: the interval as a bar, the predicted Dice as a dot, and the true one as a triangle above.

    Args:
        predicted: NaN leaves it out, as with the others.
        low: of the interval.
        high: of the interval.
        true: Dice against the truth.
    """
    middle = 15.0
    parts = [element("line", x1=at(0), y1=middle, x2=at(1), y2=middle, class_="axis")]
    for tick in (0.0, 0.5, 1.0):
        parts += [
            element("line", x1=at(tick), y1=middle - 3, x2=at(tick), y2=middle + 3, class_="axis"),
            element("text", f"{tick:g}", x=at(tick), y=HEIGHT - 3, class_="tick", text_anchor="middle"),
        ]
    words = []
    if math.isfinite(low) and math.isfinite(high):
        parts.append(element("rect", x=at(low), y=middle - 4, width=at(high) - at(low), height=8, rx=4, class_="bar"))
    if math.isfinite(predicted):
        parts.append(element("circle", cx=at(predicted), cy=middle, r=4.5, class_="dot series-1"))
        words.append(f"predicted Dice {predicted:.2f}")
    if math.isfinite(true):
        x = at(true)
        corners = f"{x:.1f},{middle - 3} {x + 5:.1f},{middle - 11} {x - 5:.1f},{middle - 11}"
        parts.append(element("polygon", points=corners, class_="truth"))
        words.append(f"true Dice {true:.2f}")
    return drawing(WIDTH, HEIGHT, ", ".join(words) or "no Dice", parts)


def at(dice: float) -> float:
    """The pixel of a Dice along the line."""
    return ROOM + min(max(dice, 0.0), 1.0) * (WIDTH - 2 * ROOM)
