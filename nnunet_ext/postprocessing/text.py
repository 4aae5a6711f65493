"""The choice of post-processing as text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nnunet_ext.postprocessing.chain import PostProcessing

FEW_PATIENTS = 20  # below, percentile intervals are too narrow
NOT_SHOWN = {"operation", "structure", "labels", "beneath", "paint", "output", "regions", "into"}


def choice_lines(chosen: PostProcessing) -> list[str]:
    """What was tried, what is kept, and what the kept steps gain together."""
    fitted, report = chosen.fitted_on, chosen.report
    rows = [["operation", "structure", "parameters", "gain in Dice", "95 % interval", "cases changed", ""]]
    rows += [_row(trial) for trial in report["candidates"]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        f"Chosen on {fitted['cases']} cases of {fitted['patients']} patients, folds {' '.join(fitted['folds'])}; "
        f"mean Dice {report['dice']:.4f}.",
        "",
        *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
        "",
    ]
    kept, together = sum(trial["kept"] for trial in report["candidates"]), report["together"]
    if together is None:
        lines.append("Nothing is kept: no interval of a gain is above 0.")
    else:
        lines.append(
            f"{kept} kept. Chosen without the cases that they are judged by, they gain {_signed(together['gain'])} "
            f"({_interval(together)})."
        )
    if not fitted["probabilities"]:
        lines.append("Hysteresis, and for nested regions hierarchy, need probabilities and were not tried.")
    if fitted["patients"] < FEW_PATIENTS:
        lines.append(
            f"Warning: with fewer than {FEW_PATIENTS} patients the intervals are too narrow; found "
            f"{fitted['patients']}."
        )
    return lines


def _row(trial: Mapping[str, Any]) -> list[str]:
    step = trial["step"]
    parameters = [
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in step.items()
        if name not in NOT_SHOWN and value is not None
    ]
    return [
        step["operation"],
        step["structure"],
        ", ".join(parameters),
        _signed(trial["gain"]),
        _interval(trial),
        str(trial["changed"]),
        "kept" if trial["kept"] else "",
    ]


def _interval(gain: Mapping[str, Any]) -> str:
    return f"{_signed(gain['low'])} to {_signed(gain['high'])}"


def _signed(value: float | None) -> str:
    """A dash where it is not defined."""
    return "-" if value is None or math.isnan(value) else f"{value:+.5f}"
