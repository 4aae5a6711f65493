"""The loss of volume contrast on vectors whose cosines are known."""

import math

import pytest
import torch

from nnunet_ext.losses.volume_contrast import overlap_loss, separation_loss, similarities

AXES = torch.eye(3)[None]  # three base crops with vectors at right angles


def test_similarities_are_cosines_without_negative_ones():
    targets = torch.tensor([[[2.0, 0, 0], [1.0, 1, 0], [-3.0, 0, 4]]])
    expected = torch.tensor([[[1, 0, 0], [math.sqrt(0.5), math.sqrt(0.5), 0], [0, 0, 0.8]]])
    torch.testing.assert_close(similarities(5 * AXES, targets), expected)


def test_right_similarities_cost_nothing():
    overlap = torch.tensor([[[1.0, 0, 0], [0.25, 0.75, 0]]])
    assert float(overlap_loss(overlap, overlap)) == pytest.approx(0, abs=2e-6)


def test_errors_are_weighted_by_the_overlap_and_squared_where_there_is_none():
    overlap = torch.tensor([[[0.75, 0.25, 0, 0]]])
    similarity = torch.tensor([[[0.25, 0.25, 0.6, 0]]])
    expected = 0.75 * math.log(2) + 0.36 / 2  # off by a half where 0.75 overlaps; two base crops without overlap
    assert float(overlap_loss(similarity, overlap)) == pytest.approx(expected, rel=1e-5)


def test_the_largest_error_and_overlap_everywhere_are_finite():
    opposite = similarities(AXES, -AXES).requires_grad_()
    loss = overlap_loss(opposite, torch.eye(3)[None])
    assert float(loss.detach()) == pytest.approx(-math.log(1e-6), rel=1e-4)
    loss.backward()
    assert bool(opposite.grad.isfinite().all())
    halves = torch.full((1, 2, 2), 0.5)  # no base crop without overlap
    assert float(overlap_loss(halves, halves)) == pytest.approx(0, abs=2e-6)


def test_equal_base_crops_cost_one_those_at_right_angles_or_opposite_nothing():
    assert float(separation_loss(torch.ones(2, 4, 3))) == pytest.approx(1)
    assert float(separation_loss(AXES)) == 0
    assert float(separation_loss(torch.tensor([[[1.0, 0], [-1.0, 0]]]))) == 0
    two_alike = torch.tensor([[[1.0, 0], [1.0, 0], [0, 1.0]]])  # one of three pairs
    assert float(separation_loss(two_alike)) == pytest.approx(1 / 3)


def test_zero_vectors_are_similar_to_nothing():
    assert float(similarities(torch.zeros(1, 2, 4), torch.zeros(1, 3, 4)).sum()) == 0
    assert float(separation_loss(torch.zeros(1, 2, 4))) == 0


def test_no_gradient_flows_to_the_base_crops_from_the_overlaps():
    base, targets = torch.randn(1, 3, 4, requires_grad=True), torch.randn(1, 2, 4, requires_grad=True)
    overlap_loss(similarities(base, targets), torch.full((1, 2, 3), 1 / 3)).backward()
    assert base.grad is None
    assert targets.grad is not None
