"""How well each confidence in the table of a prediction folder detects failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnunet_ext.evaluation.confidences import confidence_of, usable_columns
from nnunet_ext.evaluation.failure_detection import (
    augrc,
    aurc,
    excess_aurc,
    failure_auroc,
    fpr_at_95_tpr,
    pearson,
    spearman,
)
from nnunet_ext.evaluation.results import CaseEvaluation, Figures


def failure_table(
    cases: Sequence[CaseEvaluation], rows: Sequence[Mapping[str, str]], *, failure_dice: float = 0.75
) -> dict[str, Figures]:
    """Figures of every confidence column that all cases have.

    Args:
        cases: evaluated cases; their `mean_dice` counts, 0 where truth and prediction are empty.
        rows: rows of `cases.csv`; those of other cases are left out.
        failure_dice: a case with a lower Dice is a failure.

    Returns:
        Column to `aurc`, `e_aurc`, `augrc`, `failure_auroc`, `fpr_at_95_tpr`, `spearman` and `pearson`. Empty if a
        case has no row, or there is no case.
    """
    by_case = {row["case"]: row for row in rows}
    if not cases or any(case.case not in by_case for case in cases):
        return {}
    own_rows = [by_case[case.case] for case in cases]
    dice = np.array([dice_as_judged(case) for case in cases])
    return {
        column: detection_figures(dice, [confidence_of(row, column) for row in own_rows], failure_dice=failure_dice)
        for column in usable_columns(own_rows)
    }


def dice_as_judged(case: CaseEvaluation) -> float:
    """A case's mean Dice; 0, which is risk 1, where truth and prediction are empty."""
    return float(np.nan_to_num(case.figures["mean_dice"], nan=0.0))


def detection_figures(
    dice: Sequence[float] | np.ndarray, confidence: Sequence[float], *, failure_dice: float
) -> Figures:
    """The figures of one confidence; see `failure_detection`."""
    risk = 1 - np.asarray(dice)
    return {
        "aurc": aurc(risk, confidence),
        "e_aurc": excess_aurc(risk, confidence),
        "augrc": augrc(risk, confidence),
        "failure_auroc": failure_auroc(dice, confidence, threshold=failure_dice),
        "fpr_at_95_tpr": fpr_at_95_tpr(dice, confidence, threshold=failure_dice),
        "spearman": spearman(risk, confidence),
        "pearson": pearson(risk, confidence),
    }
