"""Uncertainty maps of a few voxels by hand, and the challenge's score in a loop over its thresholds."""

import math

import numpy as np
import pytest

from nnunet_ext.evaluation.overlap import dice
from nnunet_ext.evaluation.uncertainty_maps import (
    FilteredMap,
    error_auroc,
    error_average_precision,
    filtering_curves,
    qu_brats_gain,
    qu_brats_score,
)

OF_ERRORS = [error_auroc, error_average_precision]
OF_STRUCTURES = [qu_brats_score, qu_brats_gain]

# Eight voxels: two true positives, one false positive, one false negative, four true negatives.
PREDICTION = np.array([1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
TRUTH = np.array([1, 1, 0, 1, 0, 0, 0, 0], dtype=bool)
ON_ERRORS = np.array([0, 0, 1, 1, 0, 0, 0, 0], dtype=float)


def random_case(shape=(5, 6, 7), seed=0):
    """Uncertainty with values at thresholds and between, prediction and truth."""
    generator = np.random.default_rng(seed)
    uncertainty = np.where(
        generator.random(shape) < 0.5, generator.integers(0, 41, shape) / 40, generator.random(shape)
    )
    return uncertainty, generator.random(shape) < 0.4, generator.random(shape) < 0.5


# --- errors, by hand ---


def test_error_auroc_counts_the_pairs_in_the_right_order():
    """Errors have 0.9 and 0.4, right voxels 0.1, 0.4 and 0.5: 3 of 3, and 1.5 of 3 with the tie."""
    uncertainty, errors = np.array([[0.9, 0.4, 0.1, 0.4, 0.5]]), np.array([[True, True, False, False, False]])
    assert error_auroc(uncertainty, errors) == pytest.approx(4.5 / 6)


def test_average_precision_is_the_mean_precision_at_the_recalls():
    """At 0.9 one of one, recall 1/2. At 0.4 two of four (0.4 is there twice), recall 1. (1 + 2/4)/2."""
    uncertainty, errors = np.array([0.9, 0.4, 0.1, 0.4, 0.5]), np.array([True, True, False, False, False])
    assert error_average_precision(uncertainty, errors) == pytest.approx(0.75)


@pytest.mark.parametrize("metric", OF_ERRORS)
def test_a_map_that_shows_exactly_the_errors_is_perfect(metric):
    assert metric(ON_ERRORS, PREDICTION != TRUTH) == 1


def test_a_map_that_shows_nothing_is_chance():
    """Two of eight voxels are wrong."""
    assert error_auroc(np.zeros(8), PREDICTION != TRUTH) == 0.5
    assert error_average_precision(np.zeros(8), PREDICTION != TRUTH) == 0.25


@pytest.mark.parametrize("metric", OF_ERRORS)
@pytest.mark.parametrize("errors", [np.zeros(8, dtype=bool), np.ones(8, dtype=bool)])
def test_without_errors_or_with_nothing_else_there_is_nothing_to_tell(metric, errors):
    assert math.isnan(metric(np.linspace(0, 1, 8), errors))


@pytest.mark.parametrize("metric", OF_ERRORS)
def test_the_scale_of_the_uncertainty_does_not_matter_for_errors(metric):
    uncertainty, prediction, truth = random_case()
    expected = metric(uncertainty, prediction != truth)
    assert metric(100 * uncertainty - 3, prediction != truth) == pytest.approx(expected)


# --- QU-BraTS, by hand ---


def test_an_all_zero_map_has_dice_and_two_free_points():
    """Dice 2 · 2/(2 · 2 + 1 + 1) = 2/3, at every threshold; nothing is filtered. (2/3 + 1 + 1)/3."""
    assert qu_brats_score(np.zeros(8), PREDICTION, TRUTH) == pytest.approx((2 / 3 + 2) / 3)
    assert qu_brats_gain(np.zeros(8), PREDICTION, TRUTH) == 0


def test_a_map_that_covers_exactly_the_errors_is_nearly_perfect():
    """Below 100% the errors are filtered and Dice is 1; at 100% nothing is. AUC 1 - (1 - 2/3)/2 · 0.01."""
    area = 1 - (1 / 3) / 2 / 100
    assert qu_brats_score(ON_ERRORS, PREDICTION, TRUTH) == pytest.approx((area + 2) / 3)
    assert qu_brats_gain(ON_ERRORS, PREDICTION, TRUTH) == pytest.approx((area - 2 / 3) / 3)


def test_curves_of_three_thresholds():
    """Thresholds 0, 0.5, 1. A true positive has 0.5, the false positive 0.75, a true negative 0.25.

    Kept at 0: TP 1, FN 1, TN 3, Dice 2/3. At 0.5: TP 2, FN 1, TN 4, Dice 4/5. At 1: all, 4/6.
    AUC_Dice (2/3 + 2 · 4/5 + 2/3)/4 = 11/15; AUC_FTP (1/2 + 0)/4 = 1/8; AUC_FTN (1/4 + 0)/4 = 1/16.
    """
    uncertainty = np.array([0, 0.5, 0.75, 0, 0.25, 0, 0, 0])
    curves = filtering_curves(uncertainty, PREDICTION, TRUTH, thresholds=3)
    np.testing.assert_allclose(curves, [[2 / 3, 4 / 5, 2 / 3], [1 / 2, 0, 0], [1 / 4, 0, 0]])
    score = qu_brats_score(uncertainty, PREDICTION, TRUTH, thresholds=3)
    assert score == pytest.approx((11 / 15 + 7 / 8 + 15 / 16) / 3)
    gain = qu_brats_gain(uncertainty, PREDICTION, TRUTH, thresholds=3)
    assert gain == pytest.approx(score - (2 / 3 + 2) / 3)


def test_a_map_that_is_unsure_everywhere_pays_for_what_is_right():
    """Nothing is left below 100%: Dice 1, FTP 1, FTN 1, and at 100% 2/3, 0, 0. With 2 thresholds halves of both."""
    curves = filtering_curves(np.ones(8), PREDICTION, TRUTH, thresholds=2)
    np.testing.assert_allclose(curves, [[1, 2 / 3], [1, 0], [1, 0]])
    assert qu_brats_gain(np.ones(8), PREDICTION, TRUTH) < -1 / 2


def test_the_gain_of_a_wrong_segmentation_is_at_most_a_third():
    """Dice 0; all errors are covered below 100%: AUC_Dice 1 - 0.005, and nothing right is filtered."""
    assert qu_brats_gain(np.ones(4), np.ones(4, dtype=bool), np.zeros(4, dtype=bool)) == pytest.approx(0.995 / 3)


def test_two_empty_masks_agree():
    """Dice 1 and no true positives to filter: 1, less what of the background is filtered."""
    empty = np.zeros(4, dtype=bool)
    assert qu_brats_score(np.zeros(4), empty, empty) == 1
    # a quarter of the background is filtered below 100%: AUC_FTN 0.25 · 0.995
    assert qu_brats_score(np.array([1.0, 0, 0, 0]), empty, empty) == pytest.approx(1 - 0.25 * 0.995 / 3)
    assert qu_brats_gain(np.array([1.0, 0, 0, 0]), empty, empty) == pytest.approx(-0.25 * 0.995 / 3)


# --- against the definition ---


@pytest.mark.parametrize("thresholds", [2, 41, 101])
@pytest.mark.parametrize("seed", range(3))
def test_random_maps_against_a_loop_over_thresholds(thresholds, seed):
    from sklearn.metrics import auc

    uncertainty, prediction, truth = random_case(seed=seed)
    levels = [step / (thresholds - 1) for step in range(thresholds)]
    right, nothing = prediction & truth, ~prediction & ~truth
    rows = []
    for level in levels:
        kept = uncertainty <= level
        rest = dice(prediction & kept, truth & kept)
        rows.append(
            (
                1.0 if math.isnan(rest) else rest,
                (right & ~kept).sum() / right.sum(),
                (nothing & ~kept).sum() / nothing.sum(),
            )
        )
    curves = filtering_curves(uncertainty, prediction, truth, thresholds=thresholds)
    np.testing.assert_allclose(np.transpose(curves), rows)
    areas = [auc(levels, curve) for curve in np.transpose(rows)]
    expected = (areas[0] + 1 - areas[1] + 1 - areas[2]) / 3
    score = qu_brats_score(uncertainty, prediction, truth, thresholds=thresholds)
    gain = qu_brats_gain(uncertainty, prediction, truth, thresholds=thresholds)
    assert score == pytest.approx(expected)
    assert gain == pytest.approx(expected - (dice(prediction, truth) + 2) / 3)


@pytest.mark.parametrize("thresholds", [2, 101, 300])
def test_one_map_gives_the_curves_of_several_structures(thresholds):
    uncertainty, prediction, truth = random_case()
    mask = np.random.default_rng(1).random(truth.shape) < 0.5
    filtered = FilteredMap(uncertainty, mask=mask, thresholds=thresholds)
    nothing = np.zeros_like(truth)
    for pair in ((prediction, truth), (truth, nothing), (nothing, nothing), (truth, ~truth)):
        expected = filtering_curves(uncertainty[mask], *(array[mask] for array in pair), thresholds=thresholds)
        np.testing.assert_array_equal(filtered.curves(*pair), expected)


# --- what counts ---


@pytest.mark.parametrize("metric", [*OF_ERRORS, *OF_STRUCTURES])
def test_what_the_mask_leaves_out_does_not_count(metric):
    uncertainty, prediction, truth = random_case()
    mask = np.random.default_rng(1).random(truth.shape) < 0.5
    masks = [prediction != truth] if metric in OF_ERRORS else [prediction, truth]
    uncertainty[~mask] = np.nan
    expected = metric(uncertainty[mask], *(array[mask] for array in masks))
    assert metric(uncertainty, *masks, mask=mask) == expected


@pytest.mark.parametrize("metric", [*OF_ERRORS, *OF_STRUCTURES])
def test_no_voxel_that_counts_gives_nan(metric):
    masks = [TRUTH] if metric in OF_ERRORS else [PREDICTION, TRUTH]
    assert math.isnan(metric(np.zeros(8), *masks, mask=np.zeros(8, dtype=bool)))


# --- refusals ---


@pytest.mark.parametrize("metric", OF_STRUCTURES)
@pytest.mark.parametrize("value", [-0.1, 1.1, 37.0])
def test_another_scale_is_refused(metric, value):
    with pytest.raises(ValueError, match=r"in \[0, 1\].*an entropy by ln C, percentages by 100"):
        metric(np.full(8, value), PREDICTION, TRUTH)


@pytest.mark.parametrize("metric", [*OF_ERRORS, *OF_STRUCTURES])
def test_a_map_with_nan_is_refused(metric):
    masks = [TRUTH] if metric in OF_ERRORS else [PREDICTION, TRUTH]
    with pytest.raises(ValueError, match="finite where it counts"):
        metric(np.full(8, np.nan), *masks)


def test_label_maps_are_refused():
    with pytest.raises(TypeError, match=r"prediction must be boolean; found uint8.*Compare label maps"):
        qu_brats_score(np.zeros(8), PREDICTION.astype(np.uint8), TRUTH)
    with pytest.raises(TypeError, match="errors must be boolean; found int64"):
        error_auroc(np.zeros(8), TRUTH.astype(np.int64))


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"truth must have the shape of the uncertainty, \(8,\); found \(7,\)"):
        qu_brats_score(np.zeros(8), PREDICTION, TRUTH[:7])
    with pytest.raises(ValueError, match=r"mask must have the shape of the uncertainty, \(8,\); found \(1,\)"):
        error_auroc(np.zeros(8), TRUTH, mask=np.ones(1, dtype=bool))


def test_a_single_threshold_is_refused():
    with pytest.raises(ValueError, match="at least 2 thresholds"):
        qu_brats_score(np.zeros(8), PREDICTION, TRUTH, thresholds=1)
