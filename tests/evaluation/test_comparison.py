"""Comparisons of a handful of cases by hand, and all resamples of three patients one by one."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from nnunet_ext.evaluation.comparison import paired_comparison

NAN = math.nan


def compared(differences, groups=None, **options):
    """The second method has 0 everywhere; each case is its own group by default."""
    differences = np.asarray(differences, dtype=float)
    return paired_comparison(
        differences, np.zeros(len(differences)), groups=groups or range(len(differences)), **options
    )


# --- the mean and its interval ---


def test_the_difference_is_first_less_second_over_cases():
    """0.2, 0.1 and -0.06: the mean over three cases, not over the two patients."""
    found = paired_comparison([0.9, 0.8, 0.74], [0.7, 0.7, 0.8], groups=["a", "a", "b"])
    assert found.mean_difference == pytest.approx(0.08)
    assert (found.cases, found.groups, found.left_out, found.level) == (3, 2, 0, 0.95)


def test_constant_differences_leave_nothing_to_chance():
    found = compared([0.25] * 6)
    assert (found.mean_difference, found.low, found.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_the_interval_is_that_of_all_resamples(level):
    """Three patients with one to three cases: 27 ways to draw three of them."""
    patients = {"a": [0.0, 0.6], "b": [1.0], "c": [2.0, 3.0, 1.0]}
    groups = [patient for patient, values in patients.items() for _ in values]
    means = []
    for drawn in itertools.product(patients.values(), repeat=3):
        cases = [value for values in drawn for value in values]
        means.append(sum(cases) / len(cases))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    found = compared([value for values in patients.values() for value in values], groups, level=level)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_cases_of_a_patient_go_together():
    """Each patient's case twice is no more evidence than once."""
    generator = np.random.default_rng(0)
    differences = generator.normal(size=12)
    once = compared(differences)
    twice = compared(np.repeat(differences, 2), [patient for patient in range(12) for _ in range(2)])
    assert (twice.low, twice.high, twice.p_value) == pytest.approx((once.low, once.high, once.p_value))
    apart = compared(np.repeat(differences, 2))
    assert apart.high - apart.low < 0.8 * (once.high - once.low)  # 1/√2


def test_the_interval_of_many_patients_is_the_normal_one():
    """Mean ± 1.96 standard errors."""
    differences = np.random.default_rng(0).normal(0.3, 1, size=400)
    found = compared(differences)
    error = differences.std() / 400**0.5
    expected = (differences.mean() - 1.96 * error, differences.mean() + 1.96 * error)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.1 * error)


def test_the_order_of_the_methods_is_a_sign():
    first, second = np.random.default_rng(1).random((2, 15))
    one = paired_comparison(first, second, groups=range(15))
    other = paired_comparison(second, first, groups=range(15))
    assert other.mean_difference == pytest.approx(-one.mean_difference)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))
    assert other.p_value == pytest.approx(one.p_value)


def test_a_seed_fixes_the_interval():
    differences = np.random.default_rng(2).random(9)
    assert compared(differences, seed=4) == compared(differences, seed=4)
    assert compared(differences, seed=4, resamples=50).low != compared(differences, seed=5, resamples=50).low


# --- the test ---


def test_five_differences_of_one_sign():
    """Two of 2⁵ patterns of signs are as extreme."""
    assert compared([0.1, 0.2, 0.3, 0.4, 0.5]).p_value == pytest.approx(2 / 32)


def test_the_test_against_all_patterns_of_signs():
    """The sum of the ranks of positive differences; as far from its middle or farther in how many patterns."""
    differences = [0.1, -0.2, 0.35, 0.4, 0.5, -0.05, 0.7]
    ranks = [1 + sum(abs(other) < abs(value) for other in differences) for value in differences]
    middle = sum(ranks) / 2
    seen = abs(sum(rank for rank, value in zip(ranks, differences, strict=True) if value > 0) - middle)
    sums = Counter(
        sum(itertools.compress(ranks, signs)) for signs in itertools.product((False, True), repeat=len(ranks))
    )
    extreme = sum(count for value, count in sums.items() if abs(value - middle) >= seen)
    assert compared(differences).p_value == pytest.approx(extreme / 2 ** len(ranks))


def test_the_test_takes_one_difference_a_patient():
    """Patient a has 3 and -1, mean 1; b to e have 2, 3, 4, 5. All positive: 2/2⁵."""
    assert compared([3, -1, 2, 3, 4, 5], list("aabcde")).p_value == pytest.approx(2 / 32)


def test_differences_that_are_equal_but_for_rounding_are_ties():
    """0.3 - 0.2 and 0.2 - 0.1 differ in the last bit. Either they cancel out, or the smaller one has no rank 1."""
    found = paired_comparison([0.3, 0.1], [0.2, 0.2], groups=["a", "b"])
    assert found.p_value == 1
    assert math.isnan(paired_comparison([0.1 + 0.2], [0.3], groups=["a"]).p_value)


def test_methods_without_a_difference_have_no_p():
    found = compared([0.0] * 5)
    assert math.isnan(found.p_value)
    assert (found.mean_difference, found.low, found.high) == (0, 0, 0)


# --- cases without a value, and few of them ---


def test_cases_without_a_value_are_left_out_and_counted():
    """Patient b has none left and is no group any more."""
    found = paired_comparison([0.5, NAN, 0.5, 0.75], [0.25, 0.5, NAN, 0.5], groups=["a", "b", "b", "c"])
    assert (found.mean_difference, found.cases, found.groups, found.left_out) == (0.25, 2, 2, 2)


def test_one_patient_tells_nothing_about_the_next():
    found = compared([0.1, 0.2, 0.3], ["a", "a", "a"])
    assert found.mean_difference == pytest.approx(0.2)
    assert math.isnan(found.low) and math.isnan(found.high)
    assert found.p_value == 1


@pytest.mark.parametrize("differences", [[], [NAN, NAN]])
def test_no_case_has_no_difference(differences):
    found = compared(differences)
    assert (found.cases, found.groups, found.left_out) == (0, 0, len(differences))
    assert all(math.isnan(value) for value in (found.mean_difference, found.low, found.high, found.p_value))


# --- refusals ---


def test_as_many_values_as_groups_are_needed():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\), and 2 groups"):
        paired_comparison([1, 2], [1, 2, 3], groups=["a", "b"])
    with pytest.raises(ValueError, match="and 1 groups"):
        paired_comparison([1, 2], [1, 2], groups=["a"])


def test_an_infinite_value_is_refused():
    with pytest.raises(ValueError, match="must be finite, or NaN"):
        paired_comparison([math.inf], [0], groups=["a"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resamples": 0}, "at least one resample; found 0"),
        ({"level": 0}, "above 0 and below 1; found 0"),
        ({"level": 95}, "above 0 and below 1; found 95"),
    ],
)
def test_options_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        compared([1.0, 2.0], **options)
