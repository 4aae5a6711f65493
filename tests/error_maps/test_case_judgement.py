"""What an error map changes in the row of a case: only ever more cautious, and once."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_ext.error_maps.case_judgement import CaseJudgement, judged, with_judgement
from nnunet_ext.error_maps.error_model import ErrorModel

ACCEPTED = {"case": "a", "verdict": "accept", "verdict_reason": "predicted Dice 0.91", "flags": ""}


def judgement(expected: float = 0.9, flagged: tuple[int, ...] = ()) -> CaseJudgement:
    return CaseJudgement("a", expected, np.array([0.1, 0.4]), flagged, failure_dice=0.75)


def test_an_accepted_case_with_a_low_expected_dice_becomes_review():
    row = with_judgement(ACCEPTED, judgement(0.5))
    assert row["verdict"] == "review"
    assert row["verdict_reason"] == "error map: expected Dice 0.500 is below 0.75; predicted Dice 0.91"
    assert row["flags"] == ["low_expected_dice"]
    assert row["expected_dice"] == 0.5


def test_flagged_slices_are_named():
    row = with_judgement(ACCEPTED, judgement(flagged=(0, 7)))
    assert row["verdict"] == "review"
    assert row["verdict_reason"] == "error map: slices 0, 7 seem wrong; predicted Dice 0.91"
    assert row["flagged_slices"] == 2


def test_a_case_without_a_finding_keeps_its_verdict():
    row = with_judgement(ACCEPTED, judgement())
    assert (row["verdict"], row["verdict_reason"], row["flags"]) == ("accept", "predicted Dice 0.91", [])


def test_a_rejected_case_stays_rejected_for_its_own_reason_first():
    row = with_judgement({**ACCEPTED, "verdict": "reject"}, judgement(0.5))
    assert row["verdict"] == "reject"
    assert row["verdict_reason"].startswith("predicted Dice 0.91; error map: ")


def test_a_second_time_changes_nothing():
    first = with_judgement(ACCEPTED, judgement(0.5, (1,)))
    as_read = {name: ";".join(value) if isinstance(value, list) else str(value) for name, value in first.items()}
    assert with_judgement(as_read, judgement(0.5, (1,))) == {**as_read, **first}


def test_an_error_map_that_finds_nothing_later_takes_nothing_back():
    row = {
        **ACCEPTED,
        "verdict": "review",
        "verdict_reason": "error map: slices 1 seem wrong",
        "flags": "wrong_slices",
    }
    found = with_judgement(row, judgement())
    assert (found["verdict"], found["verdict_reason"]) == ("review", "error map: slices 1 seem wrong")
    assert found["flags"] == ["wrong_slices"]


def test_without_a_verdict_the_flag_says_it():
    row = with_judgement({"case": "a", "flags": "empty_segmentation"}, judgement(0.5))
    assert "verdict" not in row
    assert row["flags"] == ["empty_segmentation", "low_expected_dice"]


@pytest.mark.parametrize(("threshold", "flagged"), [(0.2, (1,)), (0.5, ()), (float("nan"), ())])
def test_slices_above_the_threshold_are_flagged(threshold, flagged):
    """Areas 2 and 2, c = 0.2; the second slice has one FP: 1/(2 + 1 + 0.2) = 0.3125."""
    foreground = np.ones((2, 2), dtype=bool)
    error = np.array([[0.0, 0.0], [1.0, 0.0]])
    found = judged("a", error, foreground, stack_axis=0, model=ErrorModel(threshold, 0.75, 0.1))
    assert found.flagged == flagged
    assert found.expected_dice == pytest.approx(6 / 7)
