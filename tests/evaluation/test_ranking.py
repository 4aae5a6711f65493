"""Ranks of a few methods on a few cases by hand, and all resamples of three patients one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nnunet_ext.evaluation.ranking import average_ranks, better_end, case_ranks


def test_the_best_of_a_case_is_first():
    """Three methods, two cases."""
    values = np.array([[0.9, 0.5], [0.8, 0.7], [0.7, 0.6]])
    assert case_ranks(values, "higher").tolist() == [[1, 3], [2, 1], [3, 2]]
    assert case_ranks(values, "lower").tolist() == [[3, 1], [2, 3], [1, 2]]


def test_methods_that_agree_share_their_ranks():
    assert case_ranks(np.array([[0.9], [0.9], [0.7]]), "higher").ravel().tolist() == [1.5, 1.5, 3]
    # the mean of three seeds that all gave 0.1 is not quite 0.1
    assert case_ranks(np.array([[0.1], [(0.1 + 0.1 + 0.1) / 3]]), "higher").ravel().tolist() == [1.5, 1.5]


def test_a_volume_error_is_judged_by_its_size():
    assert case_ranks(np.array([[-0.5], [2.0], [0.1]]), "closer to 0").ravel().tolist() == [2, 3, 1]


def test_the_average_is_over_cases_and_the_interval_over_patients():
    """Ranks of the first method 1, 2 (patient a), 1 (b) and 2 (c); 27 ways to draw three patients."""
    values = np.array([[0.9, 0.5, 0.8, 0.1], [0.8, 0.6, 0.7, 0.2]])
    first, second = average_ranks(values, ["a", "a", "b", "c"], "higher", level=0.8)
    assert (first.mean, second.mean) == (1.5, 1.5)
    ranks = ([1, 2], [1], [2])
    means = []
    for drawn in itertools.product(ranks, repeat=3):
        cases = [rank for patient in drawn for rank in patient]
        means.append(sum(cases) / len(cases))
    low, high = np.quantile(means, [0.1, 0.9], method="inverted_cdf")
    assert (first.low, first.high) == pytest.approx((low, high))
    # of two methods the ranks add up to 3 in every draw
    assert (second.low, second.high) == pytest.approx((3 - high, 3 - low))


def test_a_method_that_always_wins_leaves_nothing_to_chance():
    best = average_ranks(np.array([[0.9, 0.8, 0.7], [0.1, 0.2, 0.3]]), ["a", "b", "c"], "higher")[0]
    assert (best.mean, best.low, best.high) == (1, 1, 1)


def test_one_patient_has_no_interval():
    only = average_ranks(np.array([[0.9, 0.8], [0.1, 0.2]]), ["a", "a"], "higher")[0]
    assert only.mean == 1
    assert math.isnan(only.low)


@pytest.mark.parametrize(
    ("figure", "better"),
    [
        ("mean_dice", "higher"),
        ("LV dice", "higher"),
        ("left atrium hd95_mm", "lower"),  # a structure may have spaces in its name
        ("nll", "lower"),
        ("LV volume_error_ml", "closer to 0"),
        ("entropy_error_auroc", "higher"),
        ("mutual_information_qu_brats_gain", "higher"),
        ("LV volume_ml", None),
    ],
)
def test_which_end_is_good(figure, better):
    assert better_end(figure) == better
