"""Wrong slices, and how many of them a map finds. Expected values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_ext.evaluation.wrong_slices import (
    SliceFigures,
    expected_dice,
    slice_detection,
    slice_dice,
    slice_scores,
    slices_found,
)

NAN = math.nan


def test_the_expected_dice_sums_probabilities():
    """Two voxels segmented, wrong with 0.1 and 0.5, two not, wrong with 0.4 and 0: TP 1.4, FP 0.6, FN 0.4."""
    error = np.array([[0.1, 0.5], [0.4, 0.0]])
    foreground = np.array([[True, True], [False, False]])
    assert expected_dice(error, foreground) == pytest.approx(2.8 / (2.8 + 0.6 + 0.4))


def test_with_the_truth_as_map_it_is_the_true_dice():
    prediction = np.array([1, 1, 1, 0, 0])
    truth = np.array([1, 1, 0, 1, 0])  # TP 2, FP 1, FN 1
    assert expected_dice(prediction != truth, prediction > 0) == pytest.approx(4 / 6)


def test_a_wrong_label_is_a_false_positive():
    prediction, truth = np.array([1, 2]), np.array([1, 1])
    assert expected_dice(prediction != truth, prediction > 0) == pytest.approx(2 / 3)


def test_nothing_segmented_and_nothing_missing_has_no_dice():
    assert math.isnan(expected_dice(np.zeros((2, 2)), np.zeros((2, 2), dtype=bool)))


def test_the_dice_of_each_slice_along_any_axis():
    """Slices: right; half missing (TP 1, FN 1); empty."""
    foreground = np.array([[True, True], [True, False], [False, False]])
    wrong = np.array([[False, False], [False, True], [False, False]])
    expected = [1, 2 / 3, NAN]
    assert slice_dice(wrong, foreground, axis=0) == pytest.approx(expected, nan_ok=True)
    assert slice_dice(wrong.T, foreground.T, axis=1) == pytest.approx(expected, nan_ok=True)


def test_the_score_of_a_slice_is_damped_by_a_tenth_of_the_mean_area():
    """Areas 2 and 4, so that c = 0.3.

    First slice: TP 1.5, FP 0.5: 0.5/(3 + 0.5 + 0.3). Second: all right. Third: empty, FN 0.3: 0.3/(0.3 + 0.3).
    """
    foreground = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=bool)
    error = np.array([[0.5, 0, 0, 0], [0, 0, 0, 0], [0.1, 0.1, 0.1, 0]])
    assert slice_scores(error, foreground, axis=0) == pytest.approx([0.5 / 3.8, 0, 0.5])


def test_an_empty_segmentation_is_damped_by_one_voxel():
    assert slice_scores(np.full((1, 4), 0.25), np.zeros((1, 4), dtype=bool), axis=0) == pytest.approx([0.5])


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="2, 2"):
        expected_dice(np.zeros((2, 2)), np.zeros((2, 3), dtype=bool))


def test_a_tenth_of_the_right_slices_is_flagged():
    """Right slices score 0.1 to 1.0: one of ten may be flagged, so the threshold is 0.9; two of four are above it."""
    right = np.arange(1, 11) / 10
    wrong = np.array([0.95, 0.2, 2.0, 0.9])
    found = slice_detection(np.concatenate([right, wrong]), np.array([0.8] * 10 + [0.7] * 4))
    assert (found.threshold, found.recall, found.false_alarms) == (0.9, 0.5, 0.1)
    assert (found.wrong, found.right) == (4, 10)


def test_equal_scores_are_flagged_together_or_not_at_all():
    """All right slices have 0.5: flagging one flags all, so none is, and neither is a wrong one with 0.5."""
    found = slice_detection([0.5] * 10 + [0.5, 0.6], [1.0] * 10 + [0.0, 0.0])
    assert (found.false_alarms, found.recall) == (0, 0.5)


def test_slices_without_foreground_do_not_count():
    found = slice_detection([0.9, 0.1, 0.5], [NAN, 1.0, 0.0])
    assert (found.wrong, found.right, found.recall) == (1, 1, 1)


@pytest.mark.parametrize(("dice", "counts"), [([1.0, 1.0], (0, 2)), ([0.0, 0.0], (2, 0)), ([NAN, NAN], (0, 0))])
def test_without_a_wrong_slice_or_a_right_one_there_is_no_recall(dice, counts):
    found = slice_detection([0.1, 0.2], dice)
    assert math.isnan(found.recall)
    assert (found.wrong, found.right) == counts


def test_scores_must_be_finite():
    with pytest.raises(ValueError, match="1 scores not finite"):
        slice_detection([NAN, 0.1], [1.0, 1.0])


def test_slices_of_all_cases_are_taken_together():
    """Alone neither case has both kinds of slices; a case without the second map is left out for it."""
    right = SliceFigures(np.array([1.0, 1.0]), {"entropy": np.array([0.1, 0.2]), "error": np.array([0.0, 0.3])})
    wrong = SliceFigures(np.array([0.2, 0.3]), {"entropy": np.array([0.3, 0.15])})
    found = slices_found([right, wrong], failure_dice=0.75)
    assert (found["entropy"].recall, found["entropy"].threshold) == (0.5, 0.2)
    assert (found["error"].wrong, found["error"].right) == (0, 2)
