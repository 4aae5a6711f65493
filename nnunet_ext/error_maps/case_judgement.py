"""What an error map says about a case, and what that changes in its row of `cases.csv`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_ext.error_maps.error_model import ErrorModel
from nnunet_ext.evaluation.wrong_slices import expected_dice, slice_scores

LOW_DICE, WRONG_SLICES = "low_expected_dice", "wrong_slices"  # words of the column `flags`
REASON = "error map: "  # begins each of its sentences in `verdict_reason`
SHOWN_SLICES = 10
TABLE_NAME = "error_map.csv"


@dataclass(frozen=True)
class CaseJudgement:
    """What an error map says about a case.

    Attributes:
        case: its name.
        expected_dice: of the whole foreground; NaN if nothing is segmented and no error expected.
        slice_scores: (D), how wrong each slice seems.
        flagged: the slices above the threshold, counted from 0 along the stack.
        failure_dice: below which the expected Dice is a failure.
    """

    case: str
    expected_dice: float
    slice_scores: np.ndarray
    flagged: tuple[int, ...]
    failure_dice: float

    @property
    def reasons(self) -> dict[str, str]:
        """Flag to sentence; empty if there is nothing to say."""
        found = {}
        if self.expected_dice < self.failure_dice:
            found[LOW_DICE] = f"expected Dice {self.expected_dice:.3f} is below {self.failure_dice:g}"
        if self.flagged:
            shown = ", ".join(map(str, self.flagged[:SHOWN_SLICES]))
            more = f" and {len(self.flagged) - SHOWN_SLICES} more" if len(self.flagged) > SHOWN_SLICES else ""
            found[WRONG_SLICES] = f"slices {shown}{more} seem wrong"
        return found

    def table_row(self) -> dict[str, object]:
        """The case's row of `error_map.csv`."""
        return {
            "case": self.case,
            "expected_dice": self.expected_dice,
            "slices": len(self.slice_scores),
            "flagged_slices": ";".join(map(str, self.flagged)),
            "largest_slice_score": float(self.slice_scores.max()),
        }


def judged(
    case: str, error: np.ndarray, foreground: np.ndarray, *, stack_axis: int, model: ErrorModel
) -> CaseJudgement:
    """Judges a case by its error map.

    Args:
        case: its name.
        error: (z, y, x), probability that a voxel is wrong.
        foreground: (z, y, x), boolean, of the segmentation.
        stack_axis: along which slices are stacked.
        model: the limits.
    """
    scores = slice_scores(error, foreground, axis=stack_axis)
    # nothing exceeds NaN: without a threshold no slice is flagged
    flagged = tuple(int(number) for number in np.flatnonzero(scores > model.slice_threshold))
    return CaseJudgement(case, expected_dice(error, foreground), scores, flagged, model.failure_dice)


def with_judgement(row: Mapping[str, str], judgement: CaseJudgement) -> dict[str, object]:
    """A row of `cases.csv` with what the error map adds; only ever more cautious, and the same if repeated.

    Without a verdict, as of predictions without calibration, flags and columns are all that changes.

    Args:
        row: the case's row, with or without an earlier judgement.
        judgement: of the same case.
    """
    reasons = judgement.reasons
    result: dict[str, object] = {
        **row,
        "expected_dice": None if math.isnan(judgement.expected_dice) else judgement.expected_dice,
        "flagged_slices": len(judgement.flagged),
    }
    flags = [word for word in row.get("flags", "").split(";") if word]
    result["flags"] = list(dict.fromkeys([*flags, *reasons]))
    if row.get("verdict") and reasons:
        result |= _more_cautious(row["verdict"], row.get("verdict_reason", ""), list(reasons.values()))
    return result


def _more_cautious(word: str, reason: str, sentences: Sequence[str]) -> dict[str, str]:
    """Verdict and reason: accept becomes review; the sentences of an earlier error map are replaced."""
    before = [sentence for sentence in reason.split("; ") if sentence and not sentence.startswith(REASON)]
    own = [f"{REASON}{sentence}" for sentence in sentences]
    if word == "reject":
        return {"verdict": word, "verdict_reason": "; ".join([*before, *own])}
    return {"verdict": "review", "verdict_reason": "; ".join([*own, *before])}
