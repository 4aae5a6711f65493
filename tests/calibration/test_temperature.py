"""Temperatures whose optimum is known in closed form, those that drew the labels, and what scaling leaves alone."""

import json
import math

import numpy as np
import pytest
import torch

from nnunet_ext.calibration import temperature as temperature_module
from nnunet_ext.calibration.temperature import Temperature, fit_temperature
from nnunet_ext.evaluation.proper_scores import negative_log_likelihood


def one_logit(logit, right, wrong):
    """Two classes, log-odds of the same size in every voxel: probabilities (2, N) and labels (N).

    The likelihood is largest where the confidence sigmoid(logit / T) is the accuracy a: T = logit / ln(a/(1 - a)).
    """
    p = 1 / (1 + math.exp(-logit))
    voxels = right + wrong
    return np.array([[1 - p] * voxels, [p] * voxels]), np.array([1] * right + [0] * wrong)


def random_probabilities(classes=3, voxels=20_000, seed=0):
    logits = np.random.default_rng(seed).normal(scale=2, size=(classes, voxels))
    return np.exp(logits) / np.exp(logits).sum(axis=0)


def drawn(probabilities, seed=1):
    """(N): a label of every voxel, drawn from its probabilities (C, N)."""
    return (np.random.default_rng(seed).random(probabilities.shape[1]) > np.cumsum(probabilities, axis=0)).sum(axis=0)


# --- applying ---


def test_a_temperature_of_two_takes_square_roots():
    """√0.64 : √0.36 = 8 : 6, which is 4/7 and 3/7. √0.81 : √0.01 : √0.18 = 9 : 1 : 3√2."""
    calibrated = Temperature((2.0, 2.0), False).apply(torch.tensor([[0.64], [0.36]]))
    assert calibrated.ravel().tolist() == pytest.approx([4 / 7, 3 / 7])
    calibrated = Temperature((2.0,) * 3, False).apply(torch.tensor([[0.81], [0.01], [0.18]]))
    root = 3 * math.sqrt(2)
    assert calibrated.ravel().tolist() == pytest.approx([value / (10 + root) for value in (9, 1, root)])


def test_a_temperature_of_one_half_takes_squares():
    """0.75² : 0.25² = 9 : 1."""
    calibrated = Temperature((0.5, 0.5), False).apply(torch.tensor([[0.75], [0.25]]))
    assert calibrated.ravel().tolist() == pytest.approx([0.9, 0.1])


def test_every_class_may_have_its_own():
    """0.64^(1/2) : 0.36^1 = 0.8 : 0.36."""
    calibrated = Temperature((2.0, 1.0), False).apply(torch.tensor([[0.64], [0.36]]))
    assert calibrated.ravel().tolist() == pytest.approx([0.8 / 1.16, 0.36 / 1.16])


def test_regions_have_their_odds_to_the_power_of_one_by_t():
    """Odds of 9 become 3, 3/4; odds of 1/9 become 1/3, 1/4; the second region's odds of 3 become 9, 9/10."""
    probabilities = torch.tensor([[0.9, 0.1], [0.75, 0.5]])
    calibrated = Temperature((2.0, 0.5), True).apply(probabilities)
    np.testing.assert_allclose(calibrated, [[0.75, 0.25], [0.9, 0.5]], rtol=1e-6)


@pytest.mark.parametrize("regions", [False, True])
def test_a_temperature_of_one_changes_nothing(regions):
    probabilities = torch.from_numpy(random_probabilities(4, 210)).float().reshape(4, 5, 6, 7)
    calibrated = Temperature((1.0,) * 4, regions).apply(probabilities)
    np.testing.assert_allclose(calibrated, probabilities, atol=3e-7)


def test_a_temperature_of_one_makes_classes_add_up():
    calibrated = Temperature((1.0, 1.0), False).apply(torch.tensor([[0.3], [0.1]]))
    assert calibrated.ravel().tolist() == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize("temperature", [0.05, 0.7, 3, 20])
def test_one_temperature_leaves_the_most_likely_class(temperature):
    probabilities = torch.from_numpy(random_probabilities()).float()
    calibrated = Temperature((temperature,) * 3, False).apply(probabilities)
    of_the_old = calibrated.gather(0, probabilities.argmax(0, keepdim=True))[0]
    assert torch.equal(of_the_old, calibrated.amax(0))  # so ties by rounding are allowed, and nothing else


@pytest.mark.parametrize("temperature", [0.05, 0.7, 3, 20])
def test_a_region_stays_on_its_side_of_one_half(temperature):
    probabilities = torch.linspace(0, 1, 1001)[None]
    calibrated = Temperature((temperature,), True).apply(probabilities)
    assert not ((calibrated > 0.5) & (probabilities < 0.5)).any()
    assert not ((calibrated < 0.5) & (probabilities > 0.5)).any()


def test_temperatures_a_class_may_change_the_most_likely_one():
    """0.4 stays, 0.6^10 = 0.006."""
    probabilities = torch.tensor([[0.4], [0.6]])
    assert Temperature((1.0, 0.1), False).apply(probabilities).argmax(0).item() == 0


def test_certain_voxels_give_numbers_and_no_nan():
    """0 counts as 2^-126: at T = 20 that is 0.01269, and 0.01269/1.01269 = 0.01253. A region's 1 - p as 2^-25."""
    certain = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    for temperature in (0.05, 1.0, 2.0):
        np.testing.assert_allclose(Temperature((temperature,) * 2, False).apply(certain), certain, atol=1e-15)
    lifted = Temperature((20.0, 20.0), False).apply(certain)[1, 0].item()
    assert lifted == pytest.approx(2 ** (-126 / 20) / (1 + 2 ** (-126 / 20)))
    regions = Temperature((5.0,), True).apply(torch.tensor([[1.0, 0.0]]))
    assert regions.ravel().tolist() == pytest.approx([1 / (1 + 2**-5), 2 ** (-126 / 5)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("regions", [False, True])
def test_any_volume_comes_back_in_single_precision_and_is_not_changed(dtype, regions):
    probabilities = torch.tensor([0.25, 0.75], dtype=dtype)[:, None, None, None].expand(2, 3, 4, 5)
    before = probabilities.clone()
    calibrated = Temperature((0.5, 0.5), regions).apply(probabilities)
    assert calibrated.dtype == torch.float32
    assert calibrated.shape == probabilities.shape
    assert torch.equal(probabilities, before)
    np.testing.assert_allclose(calibrated[:, 1, 2, 3], [0.1, 0.9], rtol=1e-6)  # 1 : 9 for both


# --- fitting ---


@pytest.mark.parametrize(("logit", "right", "wrong"), [(2, 3, 1), (0.5, 7, 1), (1, 3, 1), (-2, 1, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_confidence_becomes_accuracy(logit, right, wrong, dtype):
    """For instance: sure to 0.88 (logit 2) and right in three of four: T = 2 / ln 3 = 1.82."""
    probabilities, labels = one_logit(logit, right, wrong)
    temperature = fit_temperature(probabilities.astype(dtype), labels, per_class=False, regions=False)
    assert temperature.values == pytest.approx([logit / math.log(right / wrong)] * 2, rel=1e-5)
    calibrated = temperature.apply(torch.from_numpy(probabilities))
    assert calibrated[1].tolist() == pytest.approx([right / (right + wrong)] * (right + wrong), rel=1e-5)


def test_every_region_has_its_own_closed_form():
    """Logits 2 and 1, three of four and seven of eight: 2 / ln 3 and 1 / ln 7."""
    first, second = one_logit(2, 6, 2), one_logit(1, 7, 1)
    probabilities, truth = np.stack([first[0][1], second[0][1]]), np.stack([first[1], second[1]]) == 1
    temperature = fit_temperature(probabilities, truth, per_class=False, regions=True)
    assert temperature.regions
    assert temperature.values == pytest.approx((2 / math.log(3), 1 / math.log(7)), rel=1e-5)


def test_weights_are_repetitions():
    """One voxel that is right and counts three times, one that is wrong: as if three of four were right."""
    probabilities, labels = one_logit(2, 1, 1)
    found = fit_temperature(probabilities, labels, per_class=False, regions=False, weights=np.array([3, 1]))
    assert found.values[0] == pytest.approx(2 / math.log(3), rel=1e-5)
    inside = labels[None] == 1
    found = fit_temperature(probabilities[1:], inside, per_class=False, regions=True, weights=np.array([3.0, 1.0]))
    assert found.values[0] == pytest.approx(2 / math.log(3), rel=1e-5)


@pytest.mark.parametrize("true_temperature", [0.4, 1, 2.5])
def test_the_temperature_that_drew_the_labels_is_found(true_temperature):
    probabilities = random_probabilities()
    sharpened = probabilities ** (1 / true_temperature)
    labels = drawn(sharpened / sharpened.sum(axis=0))
    found = fit_temperature(probabilities, labels, per_class=False, regions=False)
    assert found.values == pytest.approx([true_temperature] * 3, rel=0.04)


def test_the_temperatures_that_drew_the_labels_are_found():
    probabilities, temperatures = random_probabilities(), np.array([0.8, 1.5, 2.5])
    sharpened = probabilities ** (1 / temperatures[:, None])
    labels = drawn(sharpened / sharpened.sum(axis=0))
    found = fit_temperature(probabilities, labels, per_class=True, regions=False)
    assert found.values == pytest.approx(temperatures, rel=0.06)


@pytest.mark.parametrize("per_class", [False, True])
def test_no_temperature_nearby_has_a_smaller_log_likelihood(per_class):
    probabilities = random_probabilities(voxels=2000)
    labels = drawn(np.flip(probabilities, axis=1) * 0.1 + probabilities * 0.9)
    found = fit_temperature(probabilities, labels, per_class=per_class, regions=False).values

    def loss(temperatures):
        powers = probabilities ** (1 / np.array(temperatures)[:, None])
        return negative_log_likelihood(powers / powers.sum(axis=0), labels)

    for factor in (0.98, 1.02):
        nearby = [np.where(np.arange(3) == c, factor, 1) for c in range(3)] if per_class else [np.full(3, factor)]
        assert all(loss(found * factors) > loss(found) for factors in nearby)


def test_a_temperature_each_is_never_worse_than_one_for_all():
    probabilities = random_probabilities(voxels=2000)
    labels = drawn(probabilities**2 / (probabilities**2).sum(axis=0))
    losses = []
    for per_class in (True, False):
        temperature = fit_temperature(probabilities, labels, per_class=per_class, regions=False)
        losses.append(negative_log_likelihood(temperature.apply(torch.from_numpy(probabilities)).numpy(), labels))
    assert losses[0] <= losses[1] + 1e-9


def test_voxels_that_are_certain_and_wrong_are_numbers_too():
    """Certain means a logit of 126 ln 2 = 87.3 (a region: 25 ln 2), right in 999 of 1000: T = 87.3 / ln 999."""
    labels = np.array([1] * 999 + [0])
    probabilities = np.array([[0.0] * 1000, [1.0] * 1000], dtype=np.float32)
    found = fit_temperature(probabilities, labels, per_class=False, regions=False)
    assert found.values[0] == pytest.approx(126 * math.log(2) / math.log(999), rel=1e-5)
    found = fit_temperature(probabilities[1:], labels[None] == 1, per_class=False, regions=True)
    assert found.values[0] == pytest.approx(25 * math.log(2) / math.log(999), rel=1e-5)


def test_temperatures_end_at_their_bounds():
    """Certain and wrong in one of four: 87.3 / ln 3 = 79 is out of reach. Better than certain: the lower bound."""
    probabilities = np.array([[0.0] * 4, [1.0] * 4])
    found = fit_temperature(probabilities, np.array([1, 1, 1, 0]), per_class=False, regions=False)
    assert found.values == pytest.approx((20, 20))
    probabilities, labels = one_logit(0.01, 3, 1)  # 0.01 / ln 3 = 0.009
    assert fit_temperature(probabilities, labels, per_class=False, regions=False).values == pytest.approx((0.05,) * 2)


def test_a_sample_without_an_error_makes_probabilities_sharper():
    probabilities, labels = one_logit(2, 4, 0)
    for per_class, truth in ((False, labels), (True, np.array([1, 1, 0, 0]))):
        values = probabilities if truth is labels else np.c_[probabilities[:, :2], probabilities[::-1, 2:]]
        found = fit_temperature(values, truth, per_class=per_class, regions=False)
        assert all(0.05 <= value < 0.5 for value in found.values)


def test_a_class_that_does_not_occur_has_the_temperature_of_all():
    probabilities = random_probabilities(4, 3000)
    labels = drawn(probabilities[:3] ** 2 / (probabilities[:3] ** 2).sum(axis=0))  # 0 to 2 of 0 to 3
    one_for_all = fit_temperature(probabilities, labels, per_class=False, regions=False).values[0]
    found = fit_temperature(probabilities, labels, per_class=True, regions=False).values
    assert found[3] == pytest.approx(one_for_all)
    assert len(set(found)) == 4


@pytest.mark.parametrize("seed", range(10))
def test_small_and_nearly_perfect_samples_have_temperatures(seed):
    """Their likelihood has edges, where a search by slopes may stop early; one voxel of 50 is wrong."""
    probabilities = random_probabilities(4, 50, seed=seed) ** 6
    probabilities /= probabilities.sum(axis=0)
    labels = probabilities.argmax(axis=0)
    labels[0] = probabilities[:, 0].argmin()
    found = fit_temperature(probabilities, labels, per_class=True, regions=False)
    assert all(0.05 * (1 - 1e-9) <= value <= 20 * (1 + 1e-9) for value in found.values)


def test_a_search_that_does_not_arrive_is_told(monkeypatch):
    monkeypatch.setattr(temperature_module, "LARGEST_SLOPE", 0)
    probabilities = random_probabilities(voxels=50)
    with pytest.raises(RuntimeError, match=r"search for the temperatures failed \(.*\)\. Use more voxels"):
        fit_temperature(probabilities, drawn(probabilities), per_class=False, regions=False)


@pytest.mark.parametrize("inside", [False, True])
def test_a_region_that_is_nowhere_or_everywhere_keeps_its_probabilities(inside):
    found = fit_temperature(np.full((1, 5), 0.3), np.full((1, 5), inside), per_class=False, regions=True)
    assert found.values == (1,)


def test_voxels_without_weight_are_not_there():
    """The one voxel of class 0 has the weight 0."""
    probabilities, labels = one_logit(2, 3, 1)
    weights = (labels == 1).astype(float)
    without = fit_temperature(probabilities[:, :3], labels[:3], per_class=False, regions=False)
    for per_class in (False, True):
        found = fit_temperature(probabilities, labels, per_class=per_class, regions=False, weights=weights)
        assert found.values[0] == pytest.approx(without.values[0])
    found = fit_temperature(probabilities[1:], labels[None] == 1, per_class=False, regions=True, weights=weights)
    assert found.values == (1,)


def test_the_same_voxels_give_the_same_temperatures():
    probabilities = random_probabilities(voxels=500)
    labels = drawn(probabilities)
    first, second = (fit_temperature(probabilities, labels, per_class=True, regions=False) for _ in range(2))
    assert first == second


# --- files and refusals ---


def test_temperatures_survive_json():
    temperature = Temperature((1.1, 0.30000000000000004), True)
    assert Temperature.from_json(json.loads(json.dumps(temperature.as_json()))) == temperature
    with pytest.raises(KeyError, match="regions"):
        Temperature.from_json({"values": [1.0]})


@pytest.mark.parametrize("values", [(), (1.0, 0.0), (-1.0,), (float("nan"),), (float("inf"),)])
def test_temperatures_are_positive(values):
    with pytest.raises(ValueError, match="Every output needs a temperature above 0; found"):
        Temperature(values, False)


def test_another_models_probabilities_are_refused():
    with pytest.raises(ValueError, match=r"one output for each of the 3 temperatures; found 2"):
        Temperature((1.0,) * 3, False).apply(torch.ones(2, 4))


@pytest.mark.parametrize(
    ("probabilities", "labels", "weights", "message"),
    [
        (np.ones((2, 0)), np.ones(0, int), None, r"\(C, N\) with at least one voxel; found \(2, 0\)"),
        (np.ones(4), np.ones(4, int), None, r"\(C, N\) with at least one voxel; found \(4,\)"),
        (np.full((2, 2), np.nan), np.ones(2, int), None, r"in \[0, 1\]; found nan to nan. Apply softmax"),
        (np.full((2, 2), 7.0), np.ones(2, int), None, r"in \[0, 1\]; found 7.0 to 7.0. Apply softmax"),
        (np.full((2, 2), 0.5), np.ones(3, int), None, r"Labels must be one per voxel, \(2,\); found .*3"),
        (np.full((2, 2), 0.5), np.array([0, 2]), None, "2 classes must be 0 to 1; found 0 to 2. Leave out"),
        (np.full((2, 2), 0.5), np.array([0, -1]), None, "2 classes must be 0 to 1; found -1 to 0"),
        (np.full((2, 2), 0.5), np.array([0, 1]), np.ones(3), r"one per voxel, \(2,\); found the shape \(3,\)"),
        (np.full((2, 2), 0.5), np.array([0, 1]), np.zeros(2), "not all 0; found 0.0 to 0.0"),
        (np.full((2, 2), 0.5), np.array([0, 1]), np.array([1, -1.0]), "0 or more, and not all 0; found -1.0 to 1.0"),
        (np.full((2, 2), 0.5), np.array([0, 1]), np.array([1, np.inf]), "finite, 0 or more, .* found 1.0 to inf"),
    ],
)
def test_what_is_no_sample_of_voxels_is_refused(probabilities, labels, weights, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(probabilities, labels, per_class=False, regions=False, weights=weights)


def test_labels_are_integers_and_regions_masks():
    with pytest.raises(TypeError, match="Labels must be integers; found float64"):
        fit_temperature(np.full((2, 2), 0.5), np.ones(2), per_class=False, regions=False)
    with pytest.raises(TypeError, match="boolean masks, one each; found int64"):
        fit_temperature(np.full((2, 2), 0.5), np.ones((2, 2), np.int64), per_class=False, regions=True)
    with pytest.raises(ValueError, match=r"both be \(R, N\); found \(2, 2\) and \(2,\)"):
        fit_temperature(np.full((2, 2), 0.5), np.ones(2, bool), per_class=False, regions=True)
