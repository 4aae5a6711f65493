"""Ensemble weights as text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_ext.calibration.ensemble_weights import EnsembleWeights


def weights_lines(weights: EnsembleWeights) -> list[str]:
    """The Dice of every model, what was fitted, its gain on cases left out of the fit, and which weights are kept."""
    fitted = weights.fitted_on
    width = max(len(name) for name in (*weights.outputs, "weight"))
    numbers = [f"model {number}" for number in range(1, len(weights.models) + 1)]
    return [
        f"Fitted on {fitted['cases']} cases of {fitted['patients']} patients, folds {' '.join(fitted['folds'])}.",
        *(f"{number}: {name}" for number, name in zip(numbers, weights.models, strict=True)),
        "",
        row("Dice", numbers, width),
        *dice_rows(weights.figures["models"], width),
        "",
        row("weight", numbers, width),
        *(row(name, [f"{value:.3f}" for value in values], width) for name, values in fitted_rows(weights)),
        "",
        row("Dice", ["equal", "fitted", "difference"], width) + "    on cases left out of the fit",
        *(gain_row(name, gain, width) for name, gain in weights.figures["gain"]["outputs"].items()),
        gain_row("mean", weights.figures["gain"]["mean"], width),
        "",
        verdict_line(weights),
    ]


def fitted_rows(weights: EnsembleWeights) -> list[tuple[str, Sequence[float]]]:
    """The weights that were fitted, by class or region, also if they are not kept."""
    return [(name, weights.figures["fitted"][name]) for name in weights.outputs]


def row(name: str, cells: Sequence[str], width: int) -> str:
    """A row of a table."""
    return f"{name:{width}}" + "".join(f"{cell:>12}" for cell in cells)


def dice_rows(models: Sequence[Mapping[str, float]], width: int) -> list[str]:
    """The Dice of each class or region, one column per model."""
    return [row(name, [number(model[name]) for model in models], width) for name in models[0]]


def gain_row(name: str, gain: Mapping[str, Any], width: int) -> str:
    """Dice with equal and with fitted weights, and the interval of the difference."""
    low, high = number(gain["low"], sign=True), number(gain["high"], sign=True)
    cells = [number(gain["equal"]), number(gain["fitted"]), number(gain["difference"], sign=True)]
    return row(name, cells, width) + f"  ({low} to {high})"


def verdict_line(weights: EnsembleWeights) -> str:
    """Which weights are kept, and why."""
    low, high = (number(weights.figures["gain"]["mean"][end], sign=True) for end in ("low", "high"))
    interval = f"the 95 % interval of the mean difference, by patient, is {low} to {high}"
    if weights.method == "equal":
        return f"Not better than equal weights: {interval}. Equal weights are written."
    return f"Better than equal weights: {interval}. The fitted weights are written."


def number(value: float | None, *, sign: bool = False) -> str:
    """A figure, or a dash where it is not defined: NaN as fitted, null as read from the file."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:+.4f}" if sign else f"{value:.4f}"
