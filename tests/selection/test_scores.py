"""The mean of the most uncertain voxels, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_ext.selection.scores import count_of, label_scores, mean_of_top, scored

ROW = np.array([0.1, 0.9, 0.3, 0.5, 0.7])


@pytest.mark.parametrize(
    ("share", "mean"),
    [(0.2, 0.9), (0.4, 0.8), (0.41, 0.7), (1.0, 0.5), (0.01, 0.9)],
)
def test_the_largest_share_counts_and_is_rounded_up(share, mean):
    assert mean_of_top(ROW, share) == pytest.approx(mean)


def test_a_share_that_is_whole_but_for_rounding_is_not_rounded_up():
    assert count_of(300, 0.01) == 3  # 300 * 0.01 is 3.0000000000000004 for some numbers
    assert count_of(700, 0.07) == 49


def test_a_label_is_scored_with_zeros_at_other_labels():
    """Two of five voxels count. Label 1 has one of them, 0.5; label 2 has 0.9 and 0.7."""
    assert label_scores(ROW, np.array([0, 2, 0, 1, 2]), 0.4) == pytest.approx({1: 0.25, 2: 0.8})


def test_background_is_no_label():
    assert label_scores(ROW, np.zeros(5, int), 0.4) == {}


def test_a_unit_sees_only_its_box():
    unit = scored("a", ((0, 1), (1, 4)), ROW[None], np.array([[1, 0, 1, 0, 1]]), 1.0)
    assert unit.score == pytest.approx((0.9 + 0.3 + 0.5) / 3)
    assert unit.label_scores == pytest.approx({1: 0.1})
