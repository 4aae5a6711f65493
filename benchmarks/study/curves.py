"""A study's curves: reliability, and risk over coverage, a column for each test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnunet_ext.evaluation.failure_detection import risk_coverage_curve

from .measures import UNCERTAINTY
from .picture import points_of, save, unbeaten
from .results_read import REFERENCE, MethodResults
from .settings import ImageSet, Study

PANEL_INCHES = (5.0, 3.8)
FEWEST_VOXELS = 0.001  # share of all in a bin that the diagram shows
MOST_METHODS = 6  # that can be told apart, with the reference


def write_curves(study: Study, found: Mapping[str, MethodResults], file: Path) -> bool:
    """Writes the curves as SVG, of the reference and of the methods that the preset names.

    Args:
        study: the study.
        found: results by method, with the reference.
        file: to write.

    Returns:
        Whether there was something to draw: older results do not have what the curves need.
    """
    tests = study.preset.tests
    having = {name: results for name, results in found.items() if has_curves(results, tests)}
    named = {name: having[name] for name in (REFERENCE, *study.preset.curves) if name in having}
    shown = named if study.preset.curves else chosen(tests[0], having)
    if len(shown) < 2 or REFERENCE not in shown:
        return False
    figure = Figure(figsize=(PANEL_INCHES[0] * len(tests), 2 * PANEL_INCHES[1]), layout="constrained")
    panels: Sequence[Sequence[Axes]] = figure.subplots(2, len(tests), squeeze=False)
    for column, test in enumerate(tests):
        draw_reliability(panels[0][column], test, shown)
        draw_risk(panels[1][column], test, shown)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    save(figure, study, file)
    return True


def has_curves(results: MethodResults, tests: Sequence[ImageSet]) -> bool:
    """Whether the results of every seed and test set have bins and uncertainties."""
    sets = [result["tests"][test.name] for result in results.results for test in tests]
    return all(each.get("reliability") and UNCERTAINTY in each["columns"] for each in sets)


def chosen(test: ImageSet, found: Mapping[str, MethodResults]) -> dict[str, MethodResults]:
    """The reference, and of the methods that no other beats in Dice and ECE those with the highest Dice."""
    points = points_of(found, test)
    best = sorted(unbeaten(points) - {REFERENCE}, key=lambda name: -points[name][1])[: MOST_METHODS - 1]
    return {name: results for name, results in found.items() if name == REFERENCE or name in best}


def draw_reliability(panel: Axes, test: ImageSet, shown: Mapping[str, MethodResults]) -> None:
    """Accuracy less confidence over confidence: 0 is calibrated, below it is too confident."""
    for name, results in shown.items():
        confidence, accuracy = reliability_of(results, test)
        panel.plot(confidence, accuracy - confidence, marker=".", label=name, **style(name))
    panel.axhline(0, color="grey", linewidth=0.8, linestyle=":")
    panel.set(title=test.name, xlabel="confidence", ylabel="accuracy − confidence")


def reliability_of(results: MethodResults, test: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Mean confidence and accuracy, both (bins), of the voxels of all seeds; bins with few are left out."""
    voxels, confident, correct = 0.0, 0.0, 0.0
    for result in results.results:
        found = result["tests"][test.name]["reliability"]
        columns = {name: np.array(values, dtype=float) for name, values in found.items()}
        voxels = voxels + columns["voxels"]
        confident = confident + columns["voxels"] * np.nan_to_num(columns["confidence"])  # NaN in an empty bin
        correct = correct + columns["voxels"] * np.nan_to_num(columns["accuracy"])
    counts = np.asarray(voxels)
    enough = counts >= max(1, FEWEST_VOXELS * counts.sum())
    return (confident / np.maximum(counts, 1))[enough], (correct / np.maximum(counts, 1))[enough]


def draw_risk(panel: Axes, test: ImageSet, shown: Mapping[str, MethodResults]) -> None:
    """Mean risk of the cases that are accepted, the surest first."""
    for name, results in shown.items():
        risk = 1 - np.array(list(results.of_cases(test, "mean_dice").values()))
        uncertainty = np.array(list(results.of_cases(test, UNCERTAINTY).values()))
        defined = np.isfinite(risk) & np.isfinite(uncertainty)
        panel.plot(*risk_coverage_curve(risk[defined], -uncertainty[defined]), label=name, **style(name))
    panel.set(xlabel="share of the cases that is accepted", ylabel="their mean 1 − Dice")


def style(name: str) -> dict[str, str]:
    """The reference is black and dashed."""
    return {"color": "black", "linestyle": "--"} if name == REFERENCE else {}
