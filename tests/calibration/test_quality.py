"""Maps of a few cases pooled by hand, quantiles by hand, scikit-learn's own values, and simulated coverage."""

import json

import numpy as np
import pytest

from nnunet_ext.calibration.quality import QualityMap, fit_quality, patients_for_level

CONFIDENCE = [5, 1, 4, 2, 3]  # in any order
DICE = [0.9, 0.2, 0.8, 0.6, 0.4]


def random_cases(seed, patients=40, frames=2):
    """Confidence, Dice and patient of every case; the patient moves the Dice of all its cases."""
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), frames)
    confidence = generator.random(groups.size)
    dice = 0.3 + 0.5 * confidence + generator.normal(scale=0.08, size=patients)[groups]
    return confidence, np.clip(dice + generator.normal(scale=0.05, size=groups.size), 0, 1), groups


# --- the map ---


def test_neighbours_in_the_wrong_order_become_their_mean():
    """In the order of the confidence: 0.2, (0.6, 0.4) -> 0.5 twice, 0.8, 0.9."""
    quality = fit_quality(CONFIDENCE, DICE, list("abcde"))
    assert [quality.predicted_dice(c) for c in (1, 2, 3, 4, 5)] == pytest.approx([0.2, 0.5, 0.5, 0.8, 0.9])
    assert (quality.cases, quality.groups, quality.level, quality.lowest_confidence) == (5, 5, 0.9, 1)


def test_there_are_straight_lines_between_cases():
    quality = fit_quality(CONFIDENCE, DICE, list("abcde"))
    assert quality.predicted_dice(1.5) == pytest.approx(0.35)
    assert quality.predicted_dice(2.5) == pytest.approx(0.5)


def test_a_confidence_that_tells_the_reverse_tells_only_the_mean():
    quality = fit_quality([1, 2, 3], [0.9, 0.6, 0.3], list("abc"))
    assert [quality.predicted_dice(c) for c in (1, 2, 3)] == pytest.approx([0.6] * 3)


def test_cases_of_one_confidence_are_one_point():
    """(0.2 + 0.4)/2 at 1 and 0.8 at 2."""
    quality = fit_quality([1, 1, 2], [0.2, 0.4, 0.8], list("abc"))
    assert quality.confidence_knots == (1, 2)
    assert quality.dice_knots == pytest.approx((0.3, 0.8))


def test_constant_confidence_gives_the_mean_there_and_nothing_elsewhere():
    quality = fit_quality([0.5] * 3, [0.5, 0.6, 0.9], list("abc"))
    assert (len(quality.confidence_knots), quality.lowest_confidence) == (1, 0.5)
    assert quality.predicted_dice(0.5) == pytest.approx(2 / 3)
    assert (quality.predicted_dice(0.4), quality.predicted_dice(0.6)) == (None, None)


@pytest.mark.parametrize("seed", range(3))
def test_the_map_is_that_of_scikit_learn(seed):
    from sklearn.isotonic import IsotonicRegression

    confidence, dice, groups = random_cases(seed)
    confidence = np.round(confidence, 2)  # with ties
    quality = fit_quality(confidence, dice, groups)
    reference = IsotonicRegression(out_of_bounds="clip").fit(confidence, dice)
    asked = np.linspace(confidence.min(), confidence.max(), 501)
    np.testing.assert_allclose([quality.predicted_dice(c) for c in asked], reference.predict(asked), rtol=1e-12)


def test_a_case_without_foreground_counts_as_dice_0():
    with_nan = fit_quality([1, 2, 3], [0.2, 0.5, float("nan")], list("abc"))
    assert with_nan == fit_quality([1, 2, 3], [0.2, 0.5, 0.0], list("abc"))
    assert with_nan.predicted_dice(3) == pytest.approx(0.25)  # it pulls the most confident cases down: (0.5 + 0)/2


# --- the interval ---


def test_residuals_come_from_maps_without_the_patient():
    """Constant confidence: 0.5 - (0.6 + 0.9)/2 = -0.25, 0.6 - 0.7 = -0.1, 0.9 - 0.55 = 0.35.

    Three residuals and one more are quarters: at the level 0.5 the lowest and the highest of the three.
    """
    quality = fit_quality([1, 1, 1], [0.5, 0.6, 0.9], list("abc"), level=0.5)
    assert (quality.residual_low, quality.residual_high) == pytest.approx((-0.25, 0.35))
    assert quality.interval(1) == pytest.approx((2 / 3 - 0.25, 1))  # 2/3 + 0.35 is above 1


def test_a_patients_cases_share_its_weight():
    """Patient a has two cases, whose residuals are 0.4 - 0.75 = -0.35 and 0.6 - 0.75 = -0.15, an eighth each.

    b: 0.6 - (0.4 + 0.6 + 0.9)/3 = -0.0333; c: 0.9 - (0.4 + 0.6 + 0.6)/3 = 0.3667; a quarter each, and the last
    quarter lies beyond. The level 0.25 needs 5/8 from either side. From above: 0.3667 has 2/8, -0.0333 4/8, -0.15
    5/8. From below: -0.35 has 1/8, -0.15 2/8, -0.0333 4/8, 0.3667 6/8. The level 0.5 needs 6/8: the outermost.
    """
    quality = fit_quality([1] * 4, [0.4, 0.6, 0.6, 0.9], list("aabc"), level=0.25)
    assert (quality.residual_low, quality.residual_high) == pytest.approx((-0.15, 0.9 - 1.6 / 3))
    assert (quality.cases, quality.groups) == (4, 3)
    quality = fit_quality([1] * 4, [0.4, 0.6, 0.6, 0.9], list("aabc"), level=0.5)
    assert (quality.residual_low, quality.residual_high) == pytest.approx((-0.35, 0.9 - 1.6 / 3))


def test_nineteen_patients_are_enough_for_nine_tenths_and_eighteen_are_not():
    """A twentieth on each side is the first and the last of 19 residuals; of 18 there is none."""
    dice = np.linspace(0.5, 0.68, 19)  # constant confidence: residuals are 19/18 of the distance to the mean, 0.59
    quality = fit_quality(np.ones(19), dice, np.arange(19))
    # of more than five patients, five folds: the map of the others is a mean of 15 or 16
    assert -1 < quality.residual_low < -0.085
    assert 0.085 < quality.residual_high < 1
    quality = fit_quality(np.ones(18), dice[:18], np.arange(18))
    assert not quality.has_interval
    assert quality.interval(1) is None  # not 0 to 1, which would always be right


def test_six_patients_are_left_out_in_five_folds():
    """Level 5/7 needs 6/7 on each side: the lowest and the highest residual.

    Six patients, five folds: one fold holds two. Dice 0 for five and 0.6 for one: left out with another its residual
    is 0.6 - 0, alone the same; the lowest is 0 minus the mean with the 0.6 among five (0.12) or, of two, four (0.15).
    """
    quality = fit_quality([1] * 6, [0, 0, 0, 0, 0, 0.6], np.arange(6), level=5 / 7)
    assert quality.residual_high == pytest.approx(0.6)
    assert -quality.residual_low in (pytest.approx(0.12), pytest.approx(0.15))


def test_one_patient_tells_nothing_of_others():
    quality = fit_quality([1, 2, 3], [0.5, 0.6, 0.7], ["a"] * 3, level=0.1)
    assert quality.predicted_dice(2) == pytest.approx(0.6)
    assert quality.interval(2) is None


@pytest.mark.parametrize(("level", "patients"), [(0.9, 19), (0.8, 9), (0.5, 3), (5 / 7, 6), (0.95, 39), (0.1, 2)])
def test_patients_for_a_level(level, patients):
    """(G - 1)/(G + 1): 18/20 = 0.9, 8/10, 2/4, 5/7, 38/40; one patient allows 0, two allow 1/3."""
    assert patients_for_level(level) == patients


def test_the_interval_always_holds_the_predicted_dice():
    """Two patients at the level 0.1: 0.55 of the weight from below, where -0.4 has 1/3 and 0.4 has 2/3."""
    quality = fit_quality([1, 1], [0.3, 0.7], list("ab"), level=0.1)
    assert (quality.residual_low, quality.residual_high) == pytest.approx((-0.4, 0.4))
    for seed in range(5):
        quality = fit_quality(*random_cases(seed), level=0.01)
        assert quality.residual_low <= 0 <= quality.residual_high


def test_across_a_gap_the_interval_spans_both_sides():
    """Two folds: confidence 0.1 to 0.2 with Dice near 0.27, and 0.8 to 0.9 with Dice near 0.7, nothing between.

    At 0.4 the straight line says 0.26 + (0.4 - 0.2)/0.6 * 0.44 = 0.41 or so, but any Dice from 0.28 - 0.05 to
    0.68 + 0.05 agrees with the cases. At the knots the interval is that of the residuals.
    """
    quality = QualityMap((0.1, 0.2, 0.8, 0.9), (0.26, 0.28, 0.68, 0.72), -0.05, 0.05, 0.9, 40, 40)
    assert quality.predicted_dice(0.4) == pytest.approx(0.28 + 0.4 / 3)
    assert quality.interval(0.4) == pytest.approx((0.23, 0.73))
    assert quality.interval(0.2) == pytest.approx((0.23, 0.33))
    assert quality.interval(0.8) == pytest.approx((0.63, 0.73))
    assert quality.interval(0.1) == pytest.approx((0.21, 0.31))
    assert quality.interval(0.9) == pytest.approx((0.67, 0.77))


@pytest.mark.parametrize(("best", "upper"), [(0.2, 0.33), (0.5, 0.73), (0.9, 0.77), (0.95, 1.0)])
def test_the_interval_reaches_up_to_that_of_the_most_confident_fold(best, upper):
    """Of folds with the mean 0.2; a fold beyond the calibration cases may be as good as it likes."""
    quality = QualityMap((0.1, 0.2, 0.8, 0.9), (0.26, 0.28, 0.68, 0.72), -0.05, 0.05, 0.9, 40, 40)
    assert quality.interval(0.2, best) == pytest.approx((0.23, upper))


def test_where_the_map_is_flat_a_gap_widens_nothing():
    quality = QualityMap((0.1, 0.9), (0.8, 0.8), -0.05, 0.05, 0.9, 40, 40)
    assert quality.interval(0.5) == pytest.approx((0.75, 0.85))


@pytest.mark.parametrize(("inside", "outside"), [(0.5, 0.4999), (1.0, 1.0001)])
def test_outside_of_what_calibration_saw_there_is_no_estimate(inside, outside):
    """At either end: below, nothing says how low the Dice is; above, only the map's monotonicity says it is high."""
    quality = QualityMap((0.5, 1.0), (0.8, 0.8), -0.1, 0.05, 0.9, 100, 50)
    assert quality.covers(inside)
    assert quality.predicted_dice(inside) == 0.8
    assert quality.interval(inside) == pytest.approx((0.7, 0.85))
    assert not quality.covers(outside)
    assert quality.predicted_dice(outside) is None
    assert quality.interval(outside) is None


def test_no_confidence_has_no_interval():
    quality = fit_quality(np.ones(30), np.full(30, 0.8), np.arange(30))
    assert quality.interval(1) == pytest.approx((0.8, 0.8))
    assert quality.predicted_dice(float("nan")) is None
    assert quality.interval(float("nan")) is None


def test_the_order_of_the_cases_and_the_names_of_the_patients_do_not_matter():
    confidence, dice, groups = random_cases(0)
    order = np.random.default_rng(1).permutation(len(dice))
    names = np.array([f"patient_{group:03d}" for group in groups])
    first = fit_quality(confidence, dice, groups)
    second = fit_quality(confidence[order], dice[order], names[order].tolist())
    assert first.dice_knots == pytest.approx(second.dice_knots)
    assert (first.residual_low, first.residual_high) == pytest.approx((second.residual_low, second.residual_high))


def test_nine_tenths_of_new_patients_lie_within_the_interval():
    """Two correlated cases per patient, 40 patients. Standard error of 40 repetitions is about 0.006."""
    held = []
    for seed in range(40):
        quality = fit_quality(*random_cases(seed))
        confidence, dice, _ = random_cases(1000 + seed, patients=200, frames=1)
        estimated = [(quality.interval(c), d) for c, d in zip(confidence, dice, strict=True) if quality.covers(c)]
        held.append(np.mean([low <= d <= high for (low, high), d in estimated]))
    assert 0.885 <= np.mean(held) <= 0.96


# --- files and refusals ---


def test_a_map_survives_json():
    quality = fit_quality(*random_cases(0))
    assert QualityMap.from_json(json.loads(json.dumps(quality.as_json()))) == quality
    content = quality.as_json()
    del content["dice_knots"]
    with pytest.raises(KeyError, match="dice_knots"):
        QualityMap.from_json(content)


@pytest.mark.parametrize(("x", "y"), [((), ()), ((1, 2), (0.5,)), ((2, 1), (0.5, 0.6)), ((1, 2), (0.6, 0.5))])
def test_knots_that_fall_are_refused(x, y):
    with pytest.raises(ValueError, match="ascending confidence whose Dice never falls; found the confidences"):
        QualityMap(x, y, -1, 1, 0.9, 2, 2)


@pytest.mark.parametrize(
    ("confidence", "dice", "groups", "message"),
    [
        ([], [], [], r"at least one case is needed; found the shapes \(0,\) and \(0,\)"),
        ([1, 2], [0.5], [1, 2], r"one Dice and one confidence.* found the shapes \(1,\) and \(2,\)"),
        ([1, 2], [0.5, 0.6], [1], "Every case needs its patient; found 1 of 2 cases"),
        (
            [1, float("nan")],
            [0.5, 0.6],
            [1, 2],
            "confidence must be finite; found nan for case 1 of 2. .* single memb",
        ),
        ([1, float("inf")], [0.5, 0.6], [1, 2], "confidence must be finite; found inf for case 1 of 2"),
        ([1, 2], [0.5, 91.2], [1, 2], r"Dice must be in \[0, 1\]; found 0.5 to 91.2"),
    ],
)
def test_what_is_no_calibration_is_refused(confidence, dice, groups, message):
    with pytest.raises(ValueError, match=message):
        fit_quality(confidence, dice, groups)


@pytest.mark.parametrize("level", [0, 1, 90, float("nan")])
def test_a_level_is_a_share(level):
    with pytest.raises(ValueError, match=f"must be between 0 and 1; found {level}. Use 0.9"):
        fit_quality([1], [0.5], ["a"], level=level)
