"""Weights of loss terms by the epoch, by hand."""

import math

import pytest

from nnunet_ext.losses.ramps import ConstantRamp, EqualContribution, GaussianRamp, LinearRamp, RebalanceRamp


def test_a_constant_is_the_same_in_every_epoch():
    assert [ConstantRamp(0.3)(epoch, 10) for epoch in (0, 5, 9)] == [0.3] * 3


@pytest.mark.parametrize(
    ("epoch", "weight"),
    [(0, 0.0), (300, 0.0), (301, 0.5 / 300), (450, 0.25), (599, 0.5 * 299 / 300), (600, 0.5), (999, 0.5)],
)
def test_the_playbooks_ramp_of_a_boundary_loss(epoch, weight):
    assert LinearRamp(0, 0.5, begin=0.3, end=0.6)(epoch, 1000) == pytest.approx(weight, abs=1e-12)


def test_fractions_scale_with_the_length_of_the_training():
    ramp = LinearRamp(0, 1, begin=0.5, end=1.0)
    assert [ramp(epoch, 4) for epoch in range(4)] == [0, 0, 0, 0.5]


def test_a_ramp_may_fall():
    # alpha of Kervadec's rebalance: 1 to 0.01 in 99 steps of 0.01
    ramp = LinearRamp(1.0, 0.01, end=0.99)
    assert [ramp(epoch, 100) for epoch in (0, 1, 98, 99)] == pytest.approx([1.0, 0.99, 0.02, 0.01])


def test_a_ramp_without_length_is_a_step():
    ramp = LinearRamp(0, 2, begin=0.5, end=0.5)
    assert [ramp(epoch, 4) for epoch in range(4)] == [0, 0, 2, 2]


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_a_weight_that_no_term_can_have_is_refused(weight):
    with pytest.raises(ValueError, match="finite and at least 0; found"):
        ConstantRamp(weight)
    with pytest.raises(ValueError, match="finite and at least 0; found"):
        LinearRamp(weight, 1)
    with pytest.raises(ValueError, match="finite and at least 0; found"):
        LinearRamp(0, weight)


@pytest.mark.parametrize(("begin", "end"), [(-0.1, 1), (0.6, 0.3), (0, 1.1), (math.nan, 1)])
def test_a_ramp_outside_of_the_training_is_refused(begin, end):
    with pytest.raises(ValueError, match="0 <= begin <= end <= 1; found"):
        LinearRamp(0, 1, begin=begin, end=end)


# --- Kervadec's rebalance ---


@pytest.mark.parametrize(("epoch", "weight"), [(0, 0), (1, 0.01), (50, 0.5), (98, 0.98), (99, 0.99), (999, 0.99)])
def test_the_rebalance_takes_one_hundredth_more_in_each_epoch(epoch, weight):
    """alpha = 1, 0.99, ..., 0.01 is left for the rest of the loss."""
    assert RebalanceRamp()(epoch, 1000) == pytest.approx(weight)


def test_the_rebalance_counts_epochs_and_not_parts_of_the_training():
    assert [RebalanceRamp()(50, total) for total in (60, 100, 1000)] == [0.5] * 3


def test_the_rebalance_with_other_steps():
    assert [RebalanceRamp(step=0.25, last=0.6)(epoch, 10) for epoch in range(4)] == [0, 0.25, 0.5, 0.6]


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_a_rebalance_that_no_term_can_have_is_refused(weight):
    with pytest.raises(ValueError, match="finite and at least 0; found"):
        RebalanceRamp(step=weight)
    with pytest.raises(ValueError, match="finite and at least 0; found"):
        RebalanceRamp(last=weight)


# --- equal contribution ---

EQUAL = EqualContribution("Dice", "Hausdorff")


def test_a_term_contributes_as_much_as_the_other_did():
    """Dice was 0.4 and Hausdorff 6 in the epoch before: 15 times 0.4 is 6."""
    assert EQUAL(3, 10, {"Dice": [0.1, 0.2, 0.4], "Hausdorff": [1.0, 9.0, 6.0]}) == pytest.approx(15)


def test_a_term_that_training_brings_close_to_0_keeps_its_weight():
    """6 / 0.4, the largest that it was, and not 6 / 0.001; an epoch without a value does not count."""
    assert EQUAL(3, 10, {"Dice": [0.4, math.nan, 0.001], "Hausdorff": [9.0, 9.0, 6.0]}) == pytest.approx(15)


def test_other_terms_do_not_matter():
    assert EQUAL(1, 10, {"Dice": [2.0], "Hausdorff": [1.0], "Boundary": [-5.0]}) == 0.5


def test_the_first_epoch_only_measures():
    assert EQUAL(0, 10) == 0
    assert EQUAL(0, 10, {"Dice": [], "Hausdorff": []}) == 0


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_without_a_value_above_0_there_is_no_balance(value):
    assert EQUAL(3, 10, {"Dice": [value], "Hausdorff": [1.0]}) == 0
    assert EQUAL(3, 10, {"Dice": [1.0], "Hausdorff": [value]}) == 0


def test_the_weight_depends_on_nothing_but_the_means():
    means = {"Dice": [0.4], "Hausdorff": [6.0]}
    assert len({EQUAL(epoch, total, means) for epoch, total in [(1, 10), (9, 10), (500, 1000)]}) == 1


def test_gaussian_ramp_grows_to_its_last_weight():
    ramp = GaussianRamp(0.1, end=0.4)
    assert ramp(0, 100) == pytest.approx(0.1 * math.exp(-5))
    assert ramp(20, 100) == pytest.approx(0.1 * math.exp(-1.25))
    assert ramp(40, 100) == ramp(99, 100) == 0.1
    with pytest.raises(ValueError, match="0 < end <= 1"):
        GaussianRamp(0.1, end=0)
