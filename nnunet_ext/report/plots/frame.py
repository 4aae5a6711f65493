"""The frame of a plot: scales, ticks, grid lines and the names of the axes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from nnunet_ext.report.plots.svg import Point, element

LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 10.0, 38.0  # pixels for ticks and names


@dataclass(frozen=True)
class Scale:
    """Values along an axis.

    Attributes:
        low: at its start.
        high: at its end; above `low`.
    """

    low: float
    high: float

    def share(self, value: float) -> float:
        """Where a value is: 0 at the start, 1 at the end."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values within, at steps of 1, 2 or 5 times a power of ten."""
        least_step = (self.high - self.low) / max(most - 1, 1)
        power = 10.0 ** math.floor(math.log10(least_step))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least_step * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def scale_around(values: list[float], *, margin: float = 0.06) -> Scale:
    """A scale that holds all finite values and a margin; 0 to 1 if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Scale(0.0, 1.0)
    low, high = min(finite), max(finite)
    room = (high - low) * margin or abs(high) * margin or 1.0
    return Scale(low - room, high + room)


@dataclass(frozen=True)
class Frame:
    """A rectangle of pixels with a scale along each side.

    Attributes:
        x: to the right.
        y: upwards.
        width: of the whole plot, in pixels, with ticks and names.
        height: likewise.
        top: pixels above the rectangle.
        bottom: pixels below it.
    """

    x: Scale
    y: Scale
    width: float = 380.0
    height: float = 270.0
    top: float = TOP
    bottom: float = BOTTOM

    def at(self, x: float, y: float) -> Point:
        """The pixel of a value."""
        return (
            LEFT + self.x.share(x) * (self.width - LEFT - RIGHT),
            self.height - self.bottom - self.y.share(y) * (self.height - self.top - self.bottom),
        )

    def axes(self, x_name: str, y_name: str, *, y_ticks: int = 6, x_ticks: int = 6) -> list[Markup]:
        """Grid lines with their numbers, and the names of the axes; no name, no numbers along x."""
        parts = []
        left, bottom = self.at(self.x.low, self.y.low)
        right, top = self.at(self.x.high, self.y.high)
        for value in self.y.ticks(y_ticks):
            _, y = self.at(self.x.low, value)
            parts += [
                element("line", x1=left, y1=y, x2=right, y2=y, class_="grid"),
                element("text", tick_text(value), x=left - 6, y=y + 3.5, class_="tick", text_anchor="end"),
            ]
        if x_name:
            for value in self.x.ticks(x_ticks):
                x, _ = self.at(value, self.y.low)
                parts += [
                    element("line", x1=x, y1=bottom, x2=x, y2=bottom + 4, class_="axis"),
                    element("text", tick_text(value), x=x, y=bottom + 15, class_="tick", text_anchor="middle"),
                ]
            parts.append(
                element("text", x_name, x=(left + right) / 2, y=self.height - 5, class_="name", text_anchor="middle")
            )
        middle = (bottom + top) / 2
        parts += [
            element("line", x1=left, y1=bottom, x2=right, y2=bottom, class_="axis"),
            element(
                "text", y_name, x=12, y=middle, class_="name", text_anchor="middle",
                transform=f"rotate(-90 12 {middle:g})",
            ),
        ]  # fmt: skip
        return parts


def tick_text(value: float) -> str:
    """A tick's number, without noise from floating point."""
    return f"{round(value, 10):g}".replace("-", "−")
