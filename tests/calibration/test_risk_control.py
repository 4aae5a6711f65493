"""Masks of four patients worked out by hand, voxels at the thresholds, and simulated patients."""

import json

import numpy as np
import pytest

from nnunet_ext.calibration.risk_control import (
    THRESHOLDS,
    MaskThreshold,
    MissCounts,
    fit_mask_threshold,
    foreground_probability,
)


def of_true_voxels(*probabilities):
    """A case whose true foreground has these probabilities, among background."""
    p_foreground = np.r_[probabilities, 0.4, 0.99].astype(np.float32)
    return MissCounts.of(p_foreground, np.arange(len(p_foreground)) < len(probabilities))


# Missed at 0.5: 1/2, 0, 1/4, 1/5, together 0.95. Below 0.3 the first misses none: 0.45. Below 0.2 the last: 0.25.
# Below 0.1 all: 0.
PATIENTS = {
    "a": of_true_voxels(0.9, 0.9, 0.3, 0.3),
    "b": of_true_voxels(0.9, 0.9),
    "c": of_true_voxels(0.9, 0.9, 0.9, 0.1),
    "d": of_true_voxels(0.8, 0.8, 0.8, 0.8, 0.2),
}


def largest_threshold_below(probability):
    """On the grid of the logit: -0.1, -0.2, ..."""
    steps = np.ceil(10 * np.log((1 - probability) / probability))
    return 1 / (1 + np.exp(steps / 10))


# --- by hand ---


@pytest.mark.parametrize(
    ("alpha", "threshold", "risk"),
    [
        (0.39, 0.5, 0.95 / 4),  # (0.95 + 1)/5 = 0.39
        (0.38, largest_threshold_below(0.3), 0.45 / 4),  # 1.95 is too much; (0.45 + 1)/5 = 0.29
        (0.29, largest_threshold_below(0.3), 0.45 / 4),
        (0.28, largest_threshold_below(0.2), 0.25 / 4),  # (0.25 + 1)/5 = 0.25
        (0.20, largest_threshold_below(0.1), 0),  # (0 + 1)/5
    ],
)
def test_the_largest_threshold_that_keeps_the_risk_is_taken(alpha, threshold, risk):
    found = fit_mask_threshold(PATIENTS, alpha)
    assert found.threshold == pytest.approx(threshold)
    assert found.risk == pytest.approx(risk)
    assert (found.alpha, found.patients, found.left_out) == (alpha, 4, 0)


def test_too_few_patients_are_refused_with_what_they_allow():
    with pytest.raises(ValueError, match=r"found 0.19 with 4. Use 0.2 or more, or calibrate with 5 patients or more"):
        fit_mask_threshold(PATIENTS, 0.19)


def test_twenty_patients_allow_0048_and_not_0047():
    patients = {str(name): of_true_voxels(0.9, 0.1) for name in range(20)}
    assert fit_mask_threshold(patients, 0.048).risk == 0
    with pytest.raises(ValueError, match=r"found 0.047 with 20. Use 0.0477 or more, or calibrate with 21 patients"):
        fit_mask_threshold(patients, 0.047)


def test_a_patients_cases_are_pooled():
    """1 of 1 and 0 of 3 voxels are a quarter, not a half: (1/4 + 1)/2 = 0.625."""
    patient = of_true_voxels(0.2) + of_true_voxels(0.9, 0.9, 0.9)
    assert fit_mask_threshold({"a": patient}, 0.625).threshold == 0.5
    assert fit_mask_threshold({"a": patient}, 0.624).threshold < 0.2


def test_patients_without_foreground_are_left_out_and_counted():
    found = fit_mask_threshold({**PATIENTS, "e": MissCounts.empty(), "f": of_true_voxels()}, 0.39)
    assert (found.threshold, found.patients, found.left_out) == (0.5, 4, 2)


def test_voxels_that_the_model_rules_out_need_the_whole_image():
    found = fit_mask_threshold({"a": of_true_voxels(0.9, 0.0)}, 0.5)
    assert (found.threshold, found.risk) == (0, 0)
    assert found.mask(np.zeros((2, 3), np.float32)).all()


# --- counting ---


def test_foreground_is_all_classes_but_the_first_or_any_region():
    probabilities = np.array([[0.5, 1.0], [0.3, 1e-20], [0.2, 1e-20]], dtype=np.float32)
    np.testing.assert_allclose(foreground_probability(probabilities, regions=False), [0.5, 2e-20], rtol=1e-6)
    np.testing.assert_allclose(foreground_probability(probabilities, regions=True), [0.5, 1])
    with pytest.raises(ValueError, match="foreground class besides the background; found 1 outputs"):
        foreground_probability(probabilities[:1], regions=False)


def test_thresholds_fall_from_one_half_to_nothing():
    assert (THRESHOLDS[0], THRESHOLDS[-1]) == (0.5, 0)
    assert (np.diff(THRESHOLDS) < 0).all()
    logits = np.log(THRESHOLDS[:-1].astype(float) / (1 - THRESHOLDS[:-1].astype(float)))
    np.testing.assert_allclose(logits, np.linspace(0, -20, 201), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_counts_are_those_of_the_masks(dtype):
    """Every threshold's mask drawn and counted, with voxels exactly at thresholds and a rounding beside them."""
    generator = np.random.default_rng(0)
    at = THRESHOLDS[:12]
    p = np.r_[at, np.nextafter(at, np.float32(0)), np.nextafter(at, np.float32(1)), 0, 1, generator.random(200) ** 4]
    p = p.astype(dtype).reshape(2, -1)
    truth = generator.random(p.shape) < 0.7
    counts = MissCounts.of(p, truth)
    missed = [(truth & ~MaskThreshold(float(t), 0.1, 0, 1, 0).mask(p)).sum() for t in THRESHOLDS]
    np.testing.assert_allclose(counts.false_negative_rates(), np.array(missed) / truth.sum(), atol=1e-12)
    assert counts.foreground == truth.sum()
    assert counts.counts.dtype == np.int64


def test_a_voxel_at_the_threshold_is_in_the_mask():
    mask = MaskThreshold(0.5, 0.1, 0, 1, 0).mask(np.array([0.5, 0.49999997, 0.7], dtype=np.float32))
    assert mask.tolist() == [True, False, True]


def test_without_foreground_there_is_no_rate():
    assert np.isnan(MissCounts.empty().false_negative_rates()).all()
    assert of_true_voxels().foreground == 0


def test_cases_add_up_in_any_order():
    parts = list(PATIENTS.values())
    total, reverse = sum(parts, MissCounts.empty()), sum(parts[::-1], MissCounts.empty())
    assert np.array_equal(total.counts, reverse.counts)
    assert total.foreground == 15


# --- what is promised ---


def test_the_mean_risk_of_new_patients_is_kept():
    """A new patient each time, 24 in calibration, alpha 0.1; the standard error of 400 repetitions is 0.006."""
    generator = np.random.default_rng(0)
    missed = []
    for _ in range(400):
        shift = generator.normal(1, 1.5, size=(25, 1))  # of a patient's logits
        p = 1 / (1 + np.exp(-(shift + generator.normal(0, 1, size=(25, 40)))))
        truth = np.ones(40, dtype=bool)
        found = fit_mask_threshold({str(k): MissCounts.of(p[k], truth) for k in range(24)}, 0.1)
        missed.append(1 - found.mask(p[24]).mean())
    assert 0.03 < np.mean(missed) <= 0.1 + 0.012


# --- files and refusals ---


def test_a_threshold_survives_json():
    found = fit_mask_threshold(PATIENTS, 0.3)
    again = MaskThreshold.from_json(json.loads(json.dumps(found.as_json())))
    assert again == found
    p = np.array([found.threshold, np.nextafter(np.float32(found.threshold), np.float32(0))], dtype=np.float32)
    assert again.mask(p).tolist() == [True, False]
    with pytest.raises(KeyError, match="alpha"):
        MaskThreshold.from_json({"threshold": 0.5})


@pytest.mark.parametrize("alpha", [0, 1, 5, float("nan")])
def test_alpha_is_a_share(alpha):
    with pytest.raises(ValueError, match=f"alpha must be between 0 and 1; found {alpha}. Use 0.1"):
        fit_mask_threshold(PATIENTS, alpha)


@pytest.mark.parametrize("patients", [{}, {"a": MissCounts.empty()}])
def test_without_foreground_there_is_nothing_to_control(patients):
    with pytest.raises(ValueError, match=f"patients with foreground in their truth; found none of {len(patients)}"):
        fit_mask_threshold(patients, 0.5)


def test_what_is_no_case_is_refused():
    with pytest.raises(TypeError, match="boolean mask; found int64"):
        MissCounts.of(np.ones(3), np.ones(3, np.int64))
    with pytest.raises(ValueError, match=r"the same shape; found \(3,\) and \(4,\)"):
        MissCounts.of(np.ones(3), np.ones(4, bool))
    with pytest.raises(ValueError, match=r"in \[0, 1\]; found nan to nan"):
        MissCounts.of(np.full(3, np.nan), np.ones(3, bool))
    with pytest.raises(ValueError, match=r"in \[0, 1\]; found 3.0 to 3.0. Apply softmax or sigmoid"):
        MissCounts.of(np.full(3, 3.0), np.ones(3, bool))
