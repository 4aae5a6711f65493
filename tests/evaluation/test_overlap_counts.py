"""Voxels counted by hand on label maps of one row."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_ext.evaluation.overlap_counts import OverlapCounts, joint_histogram, overlap_counts

TRUTH = np.array([[0, 0, 1, 1, 2, 2, 2, 3]], dtype=np.uint8)
PREDICTION = np.array([[0, 1, 1, 2, 2, 2, 0, 1]], dtype=np.int32)


def test_pairs_of_labels_are_counted():
    """True label down, predicted label across; 8 voxels."""
    histogram = joint_histogram(TRUTH, PREDICTION)
    assert histogram.tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 2, 0], [0, 1, 0, 0]]
    assert histogram.dtype == np.int64


def test_the_histogram_is_square_whichever_map_has_the_largest_label():
    assert joint_histogram(np.array([0]), np.array([2])).tolist() == [[0, 0, 1], [0] * 3, [0] * 3]
    assert joint_histogram(np.array([2]), np.array([0])).tolist() == [[0] * 3, [0] * 3, [1, 0, 0]]


def test_small_integer_types_do_not_overflow():
    """250 · 251 + 250 is far beyond 255."""
    histogram = joint_histogram(np.array([250], np.uint8), np.array([250], np.uint8))
    assert histogram[250, 250] == histogram.sum() == 1


def test_an_image_without_a_voxel_has_no_counts():
    assert joint_histogram(np.zeros((0, 3), np.int64), np.zeros((0, 3), np.int64)).tolist() == [[0]]


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ((1,), OverlapCounts(tp=1, fp=2, fn=1, tn=4)),
        ((2,), OverlapCounts(tp=2, fp=1, fn=1, tn=4)),
        ((3,), OverlapCounts(tp=0, fp=0, fn=1, tn=7)),
        # a voxel of 1 called 2 is right: both are of the region
        ((1, 2), OverlapCounts(tp=4, fp=2, fn=1, tn=1)),
        ((4,), OverlapCounts(tp=0, fp=0, fn=0, tn=8)),  # a label that no voxel has
    ],
)
def test_counts_of_classes_and_regions(region, expected):
    assert overlap_counts(joint_histogram(TRUTH, PREDICTION), region) == expected


def test_voxels_with_the_ignore_label_are_neither_right_nor_wrong():
    """The last voxel, 3 in the truth, was a false positive of label 1; 7 voxels are left."""
    histogram = joint_histogram(TRUTH, PREDICTION)
    assert overlap_counts(histogram, (1,), ignore_label=3) == OverlapCounts(tp=1, fp=1, fn=1, tn=4)
    assert overlap_counts(histogram, (1, 2), ignore_label=3) == OverlapCounts(tp=4, fp=1, fn=1, tn=1)


def test_an_ignore_label_that_no_voxel_has_changes_nothing():
    histogram = joint_histogram(TRUTH, PREDICTION)
    assert overlap_counts(histogram, (1,), ignore_label=9) == overlap_counts(histogram, (1,))


def test_dice_and_iou():
    """2·3/(2·3 + 1 + 2) = 2/3, 3/(3 + 1 + 2) = 1/2."""
    counts = OverlapCounts(tp=3, fp=1, fn=2, tn=0)
    assert (counts.dice, counts.iou) == pytest.approx((2 / 3, 1 / 2))


def test_dice_and_iou_of_two_empty_masks_are_not_defined():
    counts = OverlapCounts(tp=0, fp=0, fn=0, tn=5)
    assert math.isnan(counts.dice)
    assert math.isnan(counts.iou)
    one_empty = OverlapCounts(tp=0, fp=0, fn=1, tn=4)
    assert (one_empty.dice, one_empty.iou) == (0, 0)


def test_the_keys_of_nnunet():
    stock = OverlapCounts(tp=3, fp=1, fn=2, tn=7).as_stock()
    assert list(stock) == ["Dice", "IoU", "FP", "TP", "FN", "TN", "n_pred", "n_ref"]
    assert [stock[key] for key in ("FP", "TP", "FN", "TN", "n_pred", "n_ref")] == [1, 3, 2, 7, 4, 5]


def test_counts_of_several_cases_add_up_to_the_pooled_dice():
    """2·(3 + 1)/(2·4 + 2 + 2) = 2/3, and not the mean of 2·3/(6 + 0 + 1) = 6/7 and 2·1/(2 + 2 + 1) = 2/5."""
    pooled = OverlapCounts(tp=3, fp=0, fn=1, tn=9) + OverlapCounts(tp=1, fp=2, fn=1, tn=9)
    assert pooled == OverlapCounts(tp=4, fp=2, fn=2, tn=18)
    assert pooled.dice == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("tp", "fp", "fn", "absent"), [(0, 0, 0, True), (1, 0, 0, False), (0, 1, 0, False), (0, 0, 1, False)]
)
def test_a_structure_is_absent_if_neither_truth_nor_prediction_has_it(tp, fp, fn, absent):
    assert OverlapCounts(tp=tp, fp=fp, fn=fn, tn=5).absent is absent
