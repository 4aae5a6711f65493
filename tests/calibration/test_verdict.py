"""Thresholds of a handful of cases counted by hand, and every rule of the verdict with its reason."""

import json
import math
from dataclasses import replace

import pytest

from nnunet_ext.calibration.quality import QualityMap
from nnunet_ext.calibration.verdict import Measure, Threshold, Verdict, fit_threshold, verdict

# Predicted Dice is the confidence, from 0.2 to 1; the interval is 0.1 to either side of each hundredth.
HUNDREDTHS = tuple(number / 100 for number in range(20, 101))
QUALITY = QualityMap(HUNDREDTHS, HUNDREDTHS, -0.1, 0.1, 0.9, 100, 50)
THRESHOLD = Threshold(0.8, 0.75, 0.95, 0.2, 20, 100)
NO_FAILURE = Threshold(None, 0.75, None, None, 0, 100)
NAN = float("nan")


# --- the threshold ---


def test_the_threshold_flags_the_failures():
    """Failures at 1, 2 and 4, good cases at 3, 5 and 6: all failures need 4, which flags one of three good cases."""
    found = fit_threshold([1, 2, 3, 4, 5, 6], [0.1, 0.5, 0.8, 0.7, 0.9, 0.9], failure_dice=0.75, recall=0.95)
    assert found == Threshold(4, 0.75, 1, pytest.approx(1 / 3), 3, 6)


def test_a_lower_recall_needs_a_lower_threshold():
    """Two of the three failures are 0.67."""
    found = fit_threshold([1, 2, 3, 4, 5, 6], [0.1, 0.5, 0.8, 0.7, 0.9, 0.9], failure_dice=0.75, recall=0.6)
    assert found == Threshold(2, 0.75, pytest.approx(2 / 3), 0, 3, 6)


def test_a_share_that_is_a_whole_number_of_failures_needs_no_more():
    """0.07 · 100 is 7.000000000000001 in floating point; seven of 100 failures are enough."""
    found = fit_threshold(range(100), [0.1] * 100, failure_dice=0.75, recall=0.07)
    assert (found.confidence_threshold, found.recall) == (6, 0.07)


def test_cases_of_the_same_confidence_are_flagged_together():
    """One failure of two would do, but both are at 1, and so is a good case."""
    found = fit_threshold([1, 1, 1, 2], [0.1, 0.1, 0.9, 0.9], failure_dice=0.75, recall=0.5)
    assert found == Threshold(1, 0.75, 1, 0.5, 2, 4)


def test_a_failure_is_below_the_limit_and_not_at_it():
    assert fit_threshold([1, 2], [0.75, 0.9], failure_dice=0.75).failures == 0
    assert fit_threshold([1, 2], [0.75, 0.9], failure_dice=0.76).failures == 1


def test_a_case_without_foreground_is_a_failure():
    found = fit_threshold([3, 1], [NAN, 0.9])
    assert (found.confidence_threshold, found.failures, found.flagged_good) == (3, 1, 1)


def test_without_a_failure_there_is_no_threshold():
    assert fit_threshold([1, 2], [0.8, 0.9]) == Threshold(None, 0.75, None, None, 0, 2)


def test_without_a_good_case_none_is_flagged():
    assert fit_threshold([1, 2], [0.1, 0.2]) == Threshold(2, 0.75, 1, None, 2, 2)


# --- the rules ---


def test_a_good_case_is_accepted():
    found = verdict(0.9, [], QUALITY, THRESHOLD)
    assert found == Verdict("accept", "predicted Dice 0.90, interval 0.80 to 1.00 at the level 0.9")


def test_a_case_that_is_predicted_to_fail_is_rejected():
    found = verdict(0.5, [], QUALITY, Threshold(0.3, 0.75, 0.95, 0.0, 20, 100))
    assert found == Verdict("reject", "predicted Dice 0.50 is below 0.75")


def test_predicted_dice_at_the_limit_is_not_below_it():
    assert verdict(0.75, [], QUALITY, Threshold(0.3, 0.75, 0.95, 0.0, 20, 100)).word == "accept"


@pytest.mark.parametrize("flag", ["all_members_empty", "empty_segmentation", "spacing_unusual"])
def test_no_case_with_a_flag_is_accepted(flag):
    assert verdict(1.0, [flag], QUALITY, THRESHOLD) == Verdict("review", f"flagged {flag}")


@pytest.mark.parametrize("confidence", [0.8, 0.79])
def test_a_case_at_or_below_the_threshold_is_reviewed(confidence):
    reason = f"confidence {confidence} is at or below 0.8, where calibration found 95% of the failures"
    assert verdict(confidence, [], QUALITY, THRESHOLD) == Verdict("review", reason)
    assert verdict(0.801, [], QUALITY, THRESHOLD).word == "accept"


@pytest.mark.parametrize("confidence", [NAN, math.inf, -math.inf])
@pytest.mark.parametrize("threshold", [THRESHOLD, NO_FAILURE])
def test_a_confidence_that_is_no_number_is_reviewed(confidence, threshold):
    found = verdict(confidence, [], QUALITY, threshold)
    assert found == Verdict("review", f"confidence is {confidence}, which is not finite")


@pytest.mark.parametrize(
    ("confidence", "reason"),
    [
        (0.4, "confidence 0.40 is below 0.50, the least confident case in calibration: no estimate of the Dice"),
        (0.95, "confidence 0.95 is above 0.90, the most confident case in calibration: no estimate of the Dice"),
    ],
)
@pytest.mark.parametrize("threshold", [Threshold(0.3, 0.75, 0.95, 0.0, 20, 100), NO_FAILURE])
def test_a_case_outside_of_what_calibration_saw_is_reviewed(confidence, reason, threshold):
    """Nothing speaks for accepting it, however good the nearest cases were, and nothing for rejecting it."""
    good_only = QualityMap((0.5, 0.9), (0.9, 0.95), -0.05, 0.05, 0.9, 100, 50)
    assert verdict(confidence, [], good_only, threshold) == Verdict("review", reason)
    assert {verdict(end, [], good_only, threshold).word for end in (0.5, 0.9)} == {"accept"}
    bad_only = QualityMap((0.5, 0.9), (0.2, 0.3), -0.05, 0.05, 0.9, 100, 50)
    assert verdict(confidence, [], bad_only, threshold).word == "review"
    assert {verdict(end, [], bad_only, threshold).word for end in (0.5, 0.9)} == {"reject"}


def test_without_a_failure_the_interval_decides():
    found = verdict(0.8, [], QUALITY, NO_FAILURE)
    assert found.word == "review"
    assert found.reason == "no calibration case failed, and the interval's lower end 0.70 is below 0.75"
    assert verdict(0.9, [], QUALITY, NO_FAILURE).word == "accept"
    assert verdict(0.8, [], QUALITY, Threshold(0.3, 0.75, 0.95, 0.0, 20, 100)).word == "accept"  # with failures: no


def test_with_too_few_patients_there_is_no_interval_to_decide_by_and_none_to_tell():
    """Of 11 patients at the level 0.9, which takes 19. The predicted Dice stays."""
    few = replace(QUALITY, groups=11)
    assert verdict(0.9, [], few, NO_FAILURE) == Verdict(
        "review", "no calibration case failed, and 11 patients are too few for an interval at the level 0.9"
    )
    found = verdict(0.9, [], few, THRESHOLD)
    assert found == Verdict("accept", "predicted Dice 0.90; 11 patients are too few for an interval at the level 0.9")
    assert verdict(0.5, [], few, NO_FAILURE).word == "reject"


def test_all_reasons_are_told_the_worst_first():
    found = verdict(0.3, ["empty_segmentation", "all_members_empty"], QUALITY, THRESHOLD)
    assert found.word == "reject"
    assert found.reason.split("; ") == [
        "predicted Dice 0.30 is below 0.75",
        "flagged empty_segmentation, all_members_empty",
        "confidence 0.3 is at or below 0.8, where calibration found 95% of the failures",
    ]
    found = verdict(0.1, ["empty_segmentation"], QUALITY, THRESHOLD)
    assert found.word == "review"
    assert [reason.split(",")[0] for reason in found.reason.split("; ")] == [
        "flagged empty_segmentation",
        "confidence 0.10 is below 0.20",
        "confidence 0.1 is at or below 0.8",
    ]
    found = verdict(NAN, ["empty_segmentation"], QUALITY, THRESHOLD)
    assert found == Verdict("review", "flagged empty_segmentation; confidence is nan, which is not finite")


@pytest.mark.parametrize(("expected", "text"), [(0.7499, "0.7499"), (0.74999999, "0.74999999")])
def test_numbers_that_differ_read_differently(expected, text):
    constant = QualityMap((0.5,), (expected,), -0.1, 0.1, 0.9, 10, 10)
    assert verdict(0.5, [], constant, NO_FAILURE).reason.startswith(f"predicted Dice {text} is below 0.75")


# --- files and refusals ---


@pytest.mark.parametrize("threshold", [THRESHOLD, NO_FAILURE])
def test_thresholds_survive_json(threshold):
    assert Threshold.from_json(json.loads(json.dumps(threshold.as_json(), allow_nan=False))) == threshold


def test_verdicts_survive_json():
    found = verdict(NAN, ["empty_segmentation"], QUALITY, THRESHOLD)
    assert Verdict.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_an_incomplete_file_is_refused():
    with pytest.raises(KeyError, match="failure_dice"):
        Threshold.from_json({"confidence_threshold": 0.5})


def test_there_are_three_words():
    with pytest.raises(ValueError, match="one of accept, review, reject; found 'maybe'"):
        Verdict("maybe", "")


def test_flags_in_one_text_are_refused():
    with pytest.raises(TypeError, match=r"list of words; found the text 'empty_segmentation'\. Split it"):
        verdict(1.0, "empty_segmentation", QUALITY, THRESHOLD)


@pytest.mark.parametrize("name", ["failure_dice", "recall"])
@pytest.mark.parametrize("value", [0, 1.1, 95, NAN])
def test_limits_are_shares(name, value):
    with pytest.raises(ValueError, match=f"{name} must be above 0 and at most 1; found {value}"):
        fit_threshold([1], [0.5], **{name: value})


def test_cases_without_a_confidence_are_refused():
    with pytest.raises(ValueError, match="confidence must be finite; found nan for case 0 of 1"):
        fit_threshold([NAN], [0.5])
    with pytest.raises(ValueError, match="at least one case is needed"):
        fit_threshold([], [])


def test_an_uncertainty_is_told_as_it_stands_in_the_table():
    """mean_entropy goes in with a minus; the reason shows 0.03, not -0.03, and turns the comparison round."""
    quality = QualityMap((-0.02, -0.01), (0.9, 0.95), -0.1, 0.1, 0.9, 10, 10)
    threshold = Threshold(-0.015, 0.75, 0.95, 0.1, 5, 50)
    found = verdict(-0.03, [], quality, threshold, measure=Measure("mean_entropy", -1))
    assert found.reason == (
        "mean_entropy 0.03 is above 0.02, the least confident case in calibration: no estimate of the Dice; "
        "mean_entropy 0.03 is at or above 0.015, where calibration found 95% of the failures"
    )
    found = verdict(-0.005, [], quality, threshold, measure=Measure("mean_entropy", -1))
    assert found.reason.startswith("mean_entropy 0.005 is below 0.010, the most confident")
