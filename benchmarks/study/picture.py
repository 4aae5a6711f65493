"""A study's picture: Dice and calibration error of every method, one panel for each test set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .results_read import REFERENCE, MethodResults
from .settings import ImageSet, Study

PANEL_INCHES = (5.0, 4.2)
SHOWN_BELOW_QUARTER = 0.05  # Dice below that of the best three quarters
Point = tuple[float, float]  # mean ECE and mean Dice


def write_picture(study: Study, found: Mapping[str, MethodResults], file: Path) -> None:
    """Writes the picture as SVG; methods that no other beats in both figures are named.

    Args:
        study: the study.
        found: results by method, with the reference.
        file: to write.
    """
    figure = Figure(figsize=(PANEL_INCHES[0] * len(study.preset.tests), PANEL_INCHES[1]), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, len(study.preset.tests), squeeze=False)[0]
    for panel, test in zip(panels, study.preset.tests, strict=True):
        draw(panel, test, found)
    save(figure, study, file)


def save(figure: Figure, study: Study, file: Path) -> None:
    """Writes a figure as SVG, with the same bytes each time."""
    with matplotlib.rc_context({"svg.hashsalt": study.name, "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})


def points_of(found: Mapping[str, MethodResults], test: ImageSet) -> dict[str, Point]:
    """The point of every method in a test set."""
    return {name: (results.mean(test, "ece"), results.mean(test, "mean_dice")) for name, results in found.items()}


def draw(panel: Axes, test: ImageSet, found: Mapping[str, MethodResults]) -> None:
    """A dot for every method, with the names of the best ones and of the reference."""
    points = {name: point for name, point in points_of(found, test).items() if all(map(math.isfinite, point))}
    dice = sorted(point[1] for point in points.values())
    lowest = dice[len(dice) // 4] - SHOWN_BELOW_QUARTER  # what failed altogether would hide all differences
    best = unbeaten(points)
    for name, point in points.items():
        if point[1] < lowest and name != REFERENCE:
            continue
        panel.scatter(*point, color="black" if name == REFERENCE else "tab:blue" if name in best else "lightgrey")
        first_there = next(other for other, place in points.items() if place == point) == name
        if first_there and (name in best or name == REFERENCE):
            panel.annotate(name, point, textcoords="offset points", xytext=(5, 4), fontsize=8)
    panel.set(title=test.name, xlabel="ECE, lower is better", ylabel="Dice, higher is better")


def unbeaten(points: Mapping[str, Point]) -> set[str]:
    """Names of the points that no other has a lower error and a higher Dice than."""
    return {
        name
        for name, (error, dice) in points.items()
        if not any(other[0] < error and other[1] > dice for other in points.values())
    }
