"""What is fitted to the cross-validation of an error model."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_ext.error_maps.error_model import (
    FILE_NAME,
    ErrorModel,
    ErrorModelError,
    ValidatedCase,
    fitted,
    validated_case,
)
from nnunet_ext.error_maps.text import doubts, fit_lines


def case(
    fold: str, scores: list[float], dice: list[float], expected: float = 0.9, true: float = 0.8
) -> ValidatedCase:
    return ValidatedCase(f"case_{fold}", fold, expected, true, np.array(scores), np.array(dice))


@pytest.fixture
def two_folds() -> list[ValidatedCase]:
    """With one right slice in ten flagged: none of two, so the threshold is the largest score of a right slice."""
    return [
        case("0", [0.1, 0.2, 0.5], [1.0, 1.0, 0.0], expected=0.9, true=0.8),
        case("1", [0.1, 0.3, 0.25, 0.9], [1.0, 1.0, 0.0, 0.0], expected=0.5, true=0.6),
    ]


def test_the_threshold_is_of_all_folds_and_measured_on_each_by_the_others(two_folds):
    found = fitted(two_folds, failure_dice=0.75, false_alarms=0.1)
    assert found.slice_threshold == 0.3
    assert found.figures["slices"]["recall"] == pytest.approx(2 / 3)  # 0.5 and 0.9, not 0.25
    left_out = found.figures["left_out"]
    assert (left_out["0"]["threshold"], left_out["0"]["recall"], left_out["0"]["false_alarms"]) == (0.3, 1, 0)
    assert (left_out["1"]["threshold"], left_out["1"]["recall"], left_out["1"]["false_alarms"]) == (0.2, 1, 0.5)


def test_the_expected_dice_is_compared_with_the_mean_of_the_other_folds(two_folds):
    """0.9 for 0.8 and 0.5 for 0.6, against 0.6 for 0.8 and 0.8 for 0.6."""
    errors = fitted(two_folds, failure_dice=0.75, false_alarms=0.1).figures["expected_dice"]
    assert errors == pytest.approx({"mean_absolute_error": 0.1, "mean_absolute_error_of_mean": 0.2})


def test_doubts_are_about_an_expected_dice_that_is_worse_than_the_mean(two_folds):
    """The case of fold 0 is expected at 0.2 instead: off by 0.6, while the mean of the other fold is off by 0.2."""
    assert doubts(fitted(two_folds, failure_dice=0.75, false_alarms=0.1)) == []
    worse = [case("0", [0.1, 0.5], [1.0, 0.0], expected=0.2, true=0.8), two_folds[1]]
    (doubt,) = doubts(fitted(worse, failure_dice=0.75, false_alarms=0.1))
    assert "expected Dice" in doubt


def test_without_a_right_slice_nothing_can_be_flagged(tmp_path):
    found = fitted([case("0", [0.1], [0.0])], failure_dice=0.75, false_alarms=0.1)
    assert math.isnan(found.slice_threshold)
    found.save(tmp_path / FILE_NAME)
    assert math.isnan(ErrorModel.load(tmp_path).slice_threshold)
    assert "no slice will be flagged" in " ".join(fit_lines(found))


def test_a_case_is_compared_slice_by_slice():
    """One voxel of two is missing on the second slice; the map gives it 0.5."""
    foreground = np.array([[True, True], [True, False]])
    error, truth = np.array([[0, 0], [0, 0.5]]), np.array([[False, False], [False, True]])
    found = validated_case("a", "0", error=error, truth=truth, foreground=foreground, stack_axis=0)
    assert found.dice == pytest.approx(6 / 7)
    assert found.expected_dice == pytest.approx(6 / 6.5)
    assert found.slice_dice == pytest.approx([1, 2 / 3])


def test_it_is_read_as_it_was_written(tmp_path):
    model = ErrorModel(0.25, 0.75, 0.1, rule="best", members=[["fold_1/checkpoint_best", "abc"]])
    model.save(tmp_path / FILE_NAME)
    assert ErrorModel.load(tmp_path) == model
    assert model.folds == ["1"]


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON"])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / FILE_NAME).write_text(content, encoding="utf-8")
    with pytest.raises(ErrorModelError, match="Fit it again"):
        ErrorModel.load(tmp_path)


def test_a_model_that_was_not_fitted_is_refused_with_the_command(tmp_path):
    with pytest.raises(ErrorModelError, match="error-map fit"):
        ErrorModel.load(tmp_path)


def test_members_that_were_trained_again_are_refused():
    model = ErrorModel(0.25, 0.75, 0.1, members=[["fold_0/checkpoint_final", "abc"]])
    model.require_members([("fold_0/checkpoint_final", "abc")])
    with pytest.raises(ErrorModelError, match="fold_0/checkpoint_final"):
        model.require_members([("fold_0/checkpoint_final", "other")])
