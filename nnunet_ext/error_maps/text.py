"""Error maps as text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_ext.calibration.folds import number
from nnunet_ext.error_maps.case_judgement import LOW_DICE, CaseJudgement
from nnunet_ext.error_maps.error_model import ErrorModel
from nnunet_ext.evaluation.text import aligned, count, percent, shown


def fit_lines(model: ErrorModel) -> list[str]:
    """What was fitted, how well it does on folds that were left out, and doubts."""
    figures = model.figures
    rows = [["slices", "wrong", "right", "recall", "false alarms"], _row("all folds", figures["slices"])]
    rows += [_row(f"fold {fold}, left out", found) for fold, found in figures["left_out"].items()]
    error = figures["expected_dice"]
    lines = [f"{count(figures['cases'], 'case')}; a slice is wrong if its Dice is below {model.failure_dice:g}", ""]
    lines += aligned(rows)
    lines += [
        "",
        f"Expected Dice is off by {shown(error['mean_absolute_error'], 3)} on average; the mean of the other folds "
        f"would be off by {shown(error['mean_absolute_error_of_mean'], 3)}.",
    ]
    return [*lines, *doubts(model)]


def doubts(model: ErrorModel) -> list[str]:
    """Reasons not to rely on an error map, as sentences; `fit` prints them, and `apply` repeats them."""
    error = model.figures.get("expected_dice", {})
    own, of_mean = number(error, "mean_absolute_error"), number(error, "mean_absolute_error_of_mean")
    found = []
    if own > of_mean:
        found.append("The error map does not predict the Dice of a case here: do not rely on the expected Dice.")
    if math.isnan(model.slice_threshold):
        found.append("No slice of the cross-validation is right, so there is no threshold: no slice will be flagged.")
    return found


def judgement_lines(judgements: Sequence[CaseJudgement]) -> list[str]:
    """One sentence about all cases."""
    low = sum(LOW_DICE in judgement.reasons for judgement in judgements)
    flagged = sum(bool(judgement.flagged) for judgement in judgements)
    return [
        f"{count(len(judgements), 'case')} judged: {low} with an expected Dice below the failure Dice, "
        f"{flagged} with slices that seem wrong"
    ]


def _row(name: str, found: Mapping[str, Any]) -> list[str]:
    return [name, str(found["wrong"]), str(found["right"]), percent(found["recall"]), percent(found["false_alarms"])]
