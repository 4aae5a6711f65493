"""An evaluation as text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_ext.evaluation.comparison import PairedComparison

END_PAPER = "arXiv 2502.09269"
NOT_DEFINED = "-"
STRUCTURE_COLUMNS = {
    "dice": ("Dice", 3),
    "hd95_mm": ("HD95 mm", 2),
    "hd_mm": ("HD mm", 2),
    "nsd": ("NSD", 3),
    "volume_error_ml": ("volume error ml", 2),
    "lesion_f1": ("lesion F1", 3),
}
CALIBRATION_COLUMNS = {
    "ece": "ECE",
    "class_wise_ece": "class-wise ECE",
    "ace": "ACE",
    "brier": "Brier",
    "nll": "NLL",
}
DETECTION_COLUMNS = {
    "aurc": "AURC",
    "e_aurc": "E-AURC",
    "augrc": "AUGRC",
    "failure_auroc": "AUROC",
    "fpr_at_95_tpr": "FPR@95",
    "spearman": "Spearman",
}
MAP_COLUMNS = {
    "error_auroc": "AUROC",
    "error_ap": "AP",
    "qu_brats": "QU-BraTS",
    "qu_brats_gain": "gain",
}


def evaluation_lines(own: Mapping[str, Any]) -> list[str]:
    """Tables of everything that was found: means ± standard deviations over the cases that define a figure.

    Args:
        own: our part of `summary.json`, with NaN for what is not defined.
    """
    figures = {name: found["mean"] for name, found in own["case_figures"].items()}
    of_folds = f" of {len(own['folds'])} folds" if "folds" in own else ""
    mean_dice = with_spread(own["case_figures"].get("mean_dice"), 3)
    lines = [f"{count(own['cases'], 'case')}{of_folds}, mean Dice {mean_dice}", ""]
    header = ["structure", *(title for title, _ in STRUCTURE_COLUMNS.values()), "pooled Dice", "absent"]
    rows = [
        [*structure_row(name, found), shown(own["pooled_dice"][name], 3), str(own["absent"][name])]
        for name, found in own["structures"].items()
        if found
    ]
    lines += [*aligned([header, *rows]), *fold_lines(own), *end_lines(own)]
    if "ece" in figures:
        found = {title: figures[key] for key, title in CALIBRATION_COLUMNS.items() if key in figures}
        lines += ["", *aligned([["probabilities", *found], ["", *(shown(value, 4) for value in found.values())]])]
    maps = [name.removesuffix("_error_auroc") for name in figures if name.endswith("_error_auroc")]
    if maps:
        slices = own["wrong_slices"]
        rows = [
            [name, *(shown(figures[f"{name}_{key}"], 3) for key in MAP_COLUMNS), shown(slices[name]["recall"], 3)]
            for name in maps
        ]
        lines += ["", *aligned([["map against errors", *MAP_COLUMNS.values(), "wrong slices"], *rows])]
    if own["failure_detection"]:
        rows = [
            [column, *(shown(found[key], 3) for key in DETECTION_COLUMNS)]
            for column, found in own["failure_detection"].items()
        ]
        lines += ["", *aligned([["confidence against risk", *DETECTION_COLUMNS.values()], *rows])]
    lines += error_lines(own["error_analysis"])
    return with_footnote(lines, "no case defines the figure, as when neither truth nor prediction has the structure")


def with_footnote(lines: Sequence[str], why: str) -> list[str]:
    """The lines, followed by what a dash means if there is one."""
    has_dash = any(NOT_DEFINED in line.split() for line in lines)
    return [*lines, "", f"A dash: {why}."] if has_dash else list(lines)


def structure_row(name: str, found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A structure and the columns of its figures."""
    return [name, *(with_spread(found[key], digits) for key, (_, digits) in STRUCTURE_COLUMNS.items())]


def fold_lines(own: Mapping[str, Any]) -> list[str]:
    """Means of the folds' means ± their standard deviation, and the mean Dice of each fold; nothing without folds."""
    if "folds" not in own:
        return []
    over = own["over_folds"]
    header = ["over the folds", *(title for title, _ in STRUCTURE_COLUMNS.values()), "pooled Dice"]
    rows = [
        [*structure_row(name, found), with_spread(over["pooled_dice"][name], 3)]
        for name, found in over["structures"].items()
        if found
    ]
    each = [
        f"{name} {shown(found['case_figures'].get('mean_dice', math.nan), 3)} ({count(found['cases'], 'case')})"
        for name, found in own["folds"].items()
    ]
    mean_dice = with_spread(over["case_figures"].get("mean_dice"), 3)
    return ["", *aligned([header, *rows]), "", f"Mean Dice over the folds {mean_dice}: {', '.join(each)}"]


def end_lines(own: Mapping[str, Any]) -> list[str]:
    """The end coefficient in both variants, the chosen one first; nothing without slices."""
    found, settings = own["end_coefficient"], own["settings"]
    if math.isnan(found["paper"]):
        return []
    words = {
        "paper": f"{shown(found['paper'], 2)} as in {END_PAPER}",
        "strict": f"{shown(found['strict'], 2)} over the foreground alone (strict)",
    }
    first = words.pop(settings["end_variant"])
    where = "" if settings["end_stack"] == "volume" else " of the true foreground"
    return [
        "",
        f"End coefficient{where} (Dice above {settings['end_threshold']:g}): {', '.join([first, *words.values()])}",
    ]


def error_lines(analysis: Mapping[str, Any]) -> list[str]:
    """Where the errors are: groups with their mean Dice and the parts of their wrong voxels, and the worst cases."""
    rows = [
        [group, str(found["n"]), shown(found["mean_dice"], 3)]
        + [percent(found[f"{part}_share"]) for part in ("missed", "spurious", "boundary")]
        for group, found in analysis["groups"].items()
    ]
    lines = ["", *aligned([["errors by group", "n", "Dice", "missed", "spurious", "boundary"], *rows])]
    worst = [f"{entry['case']} ({shown(entry['mean_dice'], 3)})" for entry in analysis["worst_cases"]]
    return [*lines, "", f"Worst: {', '.join(worst)}"] if worst else lines


def comparison_lines(comparisons: Mapping[str, PairedComparison], other: str) -> list[str]:
    """Differences with their intervals."""
    rows = [
        [
            name,
            signed(found.mean_difference),
            f"{signed(found.low)} to {signed(found.high)}",
            shown(found.p_value, 4),
            str(found.cases),
        ]
        for name, found in comparisons.items()
    ]
    first = next(iter(comparisons.values()))
    header = [f"difference to {other}", "mean", f"{first.level:.0%} interval", "p", "cases"]
    lines = ["", *aligned([header, *rows])]
    return with_footnote(lines, "too few cases or patients for an interval")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of texts: the first column to the left, numbers to the right."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        f"{row[0]:{widths[0]}}"
        + "".join(f"  {text:>{width}}" for text, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]


def count(number: int, what: str) -> str:
    """How many of something: 1 case, 2 cases."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def shown(value: float, digits: int) -> str:
    """A number, or a dash where it is not defined."""
    return NOT_DEFINED if math.isnan(value) else f"{value:.{digits}f}"


def with_spread(found: Mapping[str, float] | None, digits: int) -> str:
    """Mean ± standard deviation; the mean alone where there is only one value."""
    mean, spread = (found["mean"], found["std"]) if found else (math.nan, math.nan)
    return shown(mean, digits) + (f" ± {spread:.{digits}f}" if not math.isnan(spread) else "")


def signed(value: float) -> str:
    """A number with its sign and four digits."""
    return NOT_DEFINED if math.isnan(value) else f"{value:+.4f}"


def percent(value: float) -> str:
    """A share in percent, or a dash where it is not defined."""
    return NOT_DEFINED if math.isnan(value) else f"{value:.0%}"
