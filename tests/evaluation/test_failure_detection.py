"""Areas under curves of three to five cases by hand, what they must be for any cases, and scikit-learn."""

import math
from itertools import pairwise

import numpy as np
import pytest

from nnunet_ext.evaluation import augrc, aurc, excess_aurc
from nnunet_ext.evaluation.failure_detection import (
    failure_auroc,
    fpr_at_95_tpr,
    pearson,
    risk_coverage_curve,
    spearman,
)

AREAS = [aurc, excess_aurc, augrc]
OF_RISK = [*AREAS, risk_coverage_curve, spearman, pearson]
OF_DICE = [failure_auroc, fpr_at_95_tpr]


# --- by hand ---


def test_the_curve_accepts_the_most_confident_case_first():
    """Accepted: 0.2; then 0.2 and 0.8, mean 0.5; then 0.2, 0.8 and 0.5, mean 0.5."""
    coverages, risks = risk_coverage_curve([0.5, 0.2, 0.8], [0.1, 0.9, 0.4])
    np.testing.assert_allclose(coverages, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(risks, [0.2, 0.5, 0.5])


def test_aurc_is_the_area_by_trapezoids():
    """The curve above: (0.2 + (0.2 + 0.5)/2 + 0.5)/3 = 1.05/3; its first risk holds down to coverage 0."""
    assert aurc([0.5, 0.2, 0.8], [0.1, 0.9, 0.4]) == pytest.approx(0.35)


def test_excess_aurc_takes_the_best_order_off():
    """The best order is 0.2, 0.5, 0.8 with the means 0.2, 0.35, 0.5: (0.2 + 0.275 + 0.425)/3 = 0.3."""
    assert excess_aurc([0.5, 0.2, 0.8], [0.1, 0.9, 0.4]) == pytest.approx(0.35 - 0.3)


def test_augrc_divides_by_all_cases():
    """Sums of accepted risks by 3: 0, 0.2/3, 1/3, 1.5/3. Trapezoids: (0.1 + 0.6 + 1.25)/9 = 1.95/9."""
    assert augrc([0.5, 0.2, 0.8], [0.1, 0.9, 0.4]) == pytest.approx(1.95 / 9)


def test_cases_of_equal_confidence_are_accepted_together():
    """0.1 first, then 0.5 and 0.9 at once: (1/3, 0.1), (1, 0.5).

    AURC 0.1/3 + (0.1 + 0.5)/2 · 2/3 = 0.7/3. Generalised risks 0, 0.1/3, 0.5: 0.1/18 + (0.1/3 + 0.5)/2 · 2/3.
    """
    risk, confidence = [0.9, 0.1, 0.5], [0.2, 0.8, 0.2]
    coverages, risks = risk_coverage_curve(risk, confidence)
    np.testing.assert_allclose(coverages, [1 / 3, 1])
    np.testing.assert_allclose(risks, [0.1, 0.5])
    assert aurc(risk, confidence) == pytest.approx(0.7 / 3)
    assert augrc(risk, confidence) == pytest.approx(0.1 / 18 + 1.6 / 9)


def test_failure_auroc_counts_the_pairs_in_the_right_order():
    """Failures have the confidences 0.1 and 0.6, good cases 0.5, 0.6 and 0.9: 3 of 3, and 1.5 of 3 with the tie."""
    dice, confidence = [0.3, 0.8, 0.7, 0.9, 0.95], [0.1, 0.5, 0.6, 0.6, 0.9]
    assert failure_auroc(dice, confidence) == pytest.approx(4.5 / 6)


def test_nearly_all_failures_are_to_be_flagged():
    """Of two failures both must be (1/2 < 95%). That flags 0.1, 0.5, 0.6 and 0.6: two of three good cases."""
    dice, confidence = [0.3, 0.8, 0.7, 0.9, 0.95], [0.1, 0.5, 0.6, 0.6, 0.9]
    assert fpr_at_95_tpr(dice, confidence) == pytest.approx(2 / 3)


def test_one_failure_of_twenty_may_be_missed():
    """19 of 20 are 95%: the twentieth, the most confident of all, costs nothing. 18 of 19 are not enough."""
    dice = [0.1] * 19 + [0.9] * 10
    confidence = [*range(19), *range(100, 110)]
    assert fpr_at_95_tpr([*dice, 0.1], [*confidence, 1000]) == 0
    assert fpr_at_95_tpr(dice, [*confidence[:18], 1000, *confidence[19:]]) == 1


def test_a_failure_is_below_the_threshold_and_not_at_it():
    dice, confidence = [0.75, 0.9, 0.5], [1, 2, 3]
    assert failure_auroc(dice, confidence) == 0  # only the most confident case fails
    assert failure_auroc(dice, confidence, threshold=0.8) == 0.5  # 0.75 fails, too: it is below 0.9, and 0.5 above


def test_correlations_of_four_cases():
    """Ranks of the confidence 1, 2, 3, 4; of the risk 4, 2, 3, 1: Σd² = 9 + 0 + 0 + 9; 1 - 6 · 18/(4 · 15) = -0.8.

    Deviations of the confidence -1.5, -0.5, 0.5, 1.5 and of the risk 0.5, -0.1, 0, -0.4: the products sum to -1.3;
    √(5 · 0.42).
    """
    confidence, risk = [1, 2, 3, 4], [0.9, 0.3, 0.4, 0.0]
    assert spearman(risk, confidence) == pytest.approx(-0.8)
    assert pearson(risk, confidence) == pytest.approx(-1.3 / math.sqrt(5 * 0.42))


# --- what must hold for any cases ---


def random_cases(seed, cases=40, levels=8):
    """Risks and confidences with many ties."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, levels, cases) / levels, generator.integers(0, levels, cases) / levels


@pytest.mark.parametrize("metric", [*AREAS, failure_auroc, fpr_at_95_tpr])
def test_the_order_of_the_cases_never_changes_the_figure(metric):
    risk, confidence = random_cases(0)
    expected = metric(risk, confidence)
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(risk))
        assert metric(risk[order], confidence[order]) == expected  # to the last bit


@pytest.mark.parametrize("metric", [*AREAS, spearman, *OF_DICE])
def test_only_the_order_of_the_confidences_matters(metric):
    risk, confidence = random_cases(1)
    assert metric(risk, np.exp(3 * confidence) - 7) == pytest.approx(metric(risk, confidence))


def test_a_confidence_that_knows_nothing_has_the_mean_risk():
    risk, _ = random_cases(2)
    assert aurc(risk, np.ones(len(risk))) == pytest.approx(risk.mean())
    assert augrc(risk, np.ones(len(risk))) == pytest.approx(risk.mean() / 2)


def test_a_confidence_that_knows_the_risk_has_no_excess():
    assert excess_aurc([0, 1, 1, 1], [4, 3, 2, 1]) == 0  # also where risks are tied
    assert excess_aurc([1, 0, 1, 1], [1, 4, 3, 2]) == 0
    distinct = np.random.default_rng(3).random(30)
    assert excess_aurc(distinct, 1 - distinct**3) == pytest.approx(0, abs=1e-15)
    assert spearman(distinct, 1 - distinct**3) == pytest.approx(-1)


def test_tied_confidences_have_less_than_no_excess():
    """Selective risks 0, 1/2, 2/3 and 3/4 at quarters of the coverage: area (0 + 1/4 + 7/12 + 17/24)/4 = 37/96.

    With the last three tied a straight line from 0 to 3/4: 9/32. The difference is -10/96.
    """
    assert excess_aurc([0, 1, 1, 1], [1, 0, 0, 0]) == pytest.approx(-10 / 96)


def test_without_ties_no_order_is_better_than_the_best():
    generator = np.random.default_rng(4)
    for _ in range(50):
        risk = generator.random(12)
        assert excess_aurc(risk, generator.random(12)) > 0
        assert augrc(risk, -risk) <= augrc(risk, generator.random(12)) <= augrc(risk, risk)


@pytest.mark.parametrize(("risk", "largest_augrc"), [(0.0, 0.0), (0.3, 0.15), (1.0, 0.5)])
def test_equal_risks_leave_nothing_to_find(risk, largest_augrc):
    assert aurc([risk] * 7, range(7)) == pytest.approx(risk)
    assert excess_aurc([risk] * 7, range(7)) == pytest.approx(0, abs=1e-15)
    assert augrc([risk] * 7, range(7)) == pytest.approx(largest_augrc)


def test_a_single_case_has_its_own_risk():
    assert (aurc([0.3], [5]), excess_aurc([0.3], [5]), augrc([0.3], [5])) == (0.3, 0, 0.15)


@pytest.mark.parametrize("seed", range(5))
def test_augrc_is_the_expectation_over_thresholds_that_are_cases(seed):
    """A random case is the threshold, ties are broken at random, and the threshold itself is accepted half.

    That is the mean over cases j of Σ_i risk_i · (1 if i is more confident than j, 1/2 at a tie) / N.
    """
    risk, confidence = random_cases(seed)
    accepted = (confidence[:, None] > confidence) + 0.5 * (confidence[:, None] == confidence)  # (i, j)
    assert augrc(risk, confidence) == pytest.approx((risk @ accepted).mean() / len(risk))


@pytest.mark.parametrize("seed", range(5))
def test_augrc_of_failures_is_told_by_auroc_and_their_share(seed):
    """Traub et al. 2024: (1 - AUROC) · share · (1 - share) + share²/2, also with ties."""
    dice, confidence = random_cases(seed)
    failure = dice < 0.75
    share = failure.mean()
    expected = (1 - failure_auroc(dice, confidence)) * share * (1 - share) + share**2 / 2
    assert augrc(failure, confidence) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_aurc_without_ties_against_a_loop_over_cases(seed):
    generator = np.random.default_rng(seed)
    risk, confidence = generator.random(25), generator.permutation(25)
    means = [np.mean([r for r, c in zip(risk, confidence, strict=True) if c >= 24 - k]) for k in range(25)]
    area = means[0] / 25 + sum((low + high) / 2 / 25 for low, high in pairwise(means))
    assert aurc(risk, confidence) == pytest.approx(area)


def test_false_positive_rate_against_all_thresholds():
    for seed in range(5):
        dice, confidence = random_cases(seed, cases=60)
        failure = dice < 0.75
        rates = [
            (confidence[~failure] <= threshold).mean()
            for threshold in np.unique(confidence)
            if (confidence[failure] <= threshold).mean() >= 0.95
        ]
        assert fpr_at_95_tpr(dice, confidence) == pytest.approx(min(rates))


# --- nothing to tell ---


@pytest.mark.parametrize("metric", OF_DICE)
@pytest.mark.parametrize("dice", [[0.9, 0.8, 1.0], [0.1, 0.2, 0.0]])
def test_cases_that_are_all_good_or_all_bad_give_nan(metric, dice):
    assert math.isnan(metric(dice, [1, 2, 3]))


@pytest.mark.parametrize("metric", [spearman, pearson])
@pytest.mark.parametrize(("risk", "confidence"), [([0.5] * 3, [1, 2, 3]), ([1, 2, 3], [0.5] * 3), ([1], [1])])
def test_constants_have_no_correlation(metric, risk, confidence):
    assert math.isnan(metric(risk, confidence))


# --- refusals ---


@pytest.mark.parametrize("metric", [*OF_RISK, *OF_DICE])
@pytest.mark.parametrize(("first", "second"), [([], []), ([0.1], [0.1, 0.2]), ([[0.1]], [[0.2]])])
def test_what_is_not_one_number_a_case_is_refused(metric, first, second):
    with pytest.raises(ValueError, match="one confidence"):
        metric(first, second)


@pytest.mark.parametrize("metric", [*OF_RISK, *OF_DICE])
def test_a_case_without_a_number_is_refused(metric):
    with pytest.raises(ValueError, match=r"must be finite; found nan for case 1 of 3.*Dice 0 and risk 1"):
        metric([0.1, float("nan"), 0.3], [1, 2, 3])
    with pytest.raises(ValueError, match=r"confidence must be finite; found inf for case 2 of 3"):
        metric([0.1, 0.2, 0.3], [1, 2, float("inf")])
