"""Numbers as text for the page; an undefined number is a dash."""

from __future__ import annotations

import math

NOT_DEFINED = "–"
NO_ESTIMATE = "no estimate"
COLUMN_WORDS = {
    "predicted_dice": "predicted Dice",
    "pairwise_dice": "pairwise Dice",
    "mean_entropy": "mean entropy",
    "foreground_entropy": "foreground entropy",
    "mutual_information": "mutual information",
}


def column_words(column: str) -> str:
    """A column of `cases.csv` in words."""
    return COLUMN_WORDS.get(column, column.replace("_", " "))


def with_capital(words: str) -> str:
    """Words with a large first letter, the others as they are: "Pairwise Dice"."""
    return words[:1].upper() + words[1:]


def fixed(value: float, digits: int = 3) -> str:
    """So many digits behind the point, with a real minus sign."""
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else NOT_DEFINED


def significant(value: float, digits: int = 3) -> str:
    """So many digits that count, never in powers of ten: 174, 36.1, 0.0256."""
    if not math.isfinite(value):
        return NOT_DEFINED
    if value == 0:
        return "0"
    behind = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, behind):.{min(max(behind, 0), 6)}f}".replace("-", "−")


def percent(share: float) -> str:
    """A share in whole percent."""
    return f"{100 * share:.0f} %".replace("-", "−") if math.isfinite(share) else NOT_DEFINED


def with_spread(volume: float, variation: float) -> str:
    """A volume with the spread of the members: `36.1 ± 17 %`."""
    spread = f" ± {percent(variation)}" if math.isfinite(variation) else ""
    return significant(volume) + spread


def interval(predicted: float, low: float, high: float) -> str:
    """`0.87 (0.78 to 0.93)`; `no estimate` if there is none, whatever the interval."""
    if not math.isfinite(predicted):
        return NO_ESTIMATE
    bounds = f" ({fixed(low, 2)} to {fixed(high, 2)})" if math.isfinite(low) and math.isfinite(high) else ""
    return fixed(predicted, 2) + bounds
