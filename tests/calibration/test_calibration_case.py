"""What is kept of a case, on volumes whose probabilities say where they are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_ext.calibration import calibration_case as module
from nnunet_ext.calibration.calibration_case import CalibrationCase, calibration_case, drawn_voxels
from nnunet_ext.calibration.risk_control import THRESHOLDS
from nnunet_ext.labels import LabelScheme
from nnunet_ext.prediction_folder.case_files import CasePrediction

SHAPE = (4, 6, 8)
CLASSES = {"organ": (1,), "lesion": (2,)}
SCHEME = LabelScheme(CLASSES)
REGIONS = LabelScheme({"whole": (1, 2), "core": (2,)}, regions=True)


def drawn() -> np.ndarray:
    """16 voxels of organ and 8 of lesion in a box of 2·3·4."""
    truth = np.zeros(SHAPE, np.uint8)
    truth[1:3, 2:4, 3:7] = 1
    truth[1:3, 4, 3:7] = 2
    return truth


def numbered(outputs: int) -> np.ndarray:
    """(C, *SHAPE): the last output's probability is the voxel's number by 1000, the others share the rest."""
    last = np.arange(math.prod(SHAPE)).reshape(SHAPE) / 1000
    return np.stack([(1 - last) / (outputs - 1)] * (outputs - 1) + [last])


def kept(
    truth: np.ndarray | None = None,
    *,
    scheme: LabelScheme = SCHEME,
    name: str = "case",
    segmentation: np.ndarray | None = None,
    probabilities: np.ndarray | None = None,
) -> CalibrationCase:
    """Of a prediction that is the truth, unless said otherwise."""
    truth = drawn() if truth is None else truth
    segmentation = truth if segmentation is None else segmentation
    probabilities = numbered(3) if probabilities is None else probabilities
    prediction = CasePrediction(name, segmentation, {}, {"members": 2, "flags": []}, {}, probabilities)
    return calibration_case(prediction, truth, scheme, patient="p", fold="0")


def numbers(case: CalibrationCase) -> list[int]:
    return [round(value * 1000) for value in case.probabilities[-1].tolist()]


BOX = np.arange(math.prod(SHAPE)).reshape(SHAPE)[1:3, 2:5, 3:7]


# --- voxels ---


def test_all_voxels_of_the_truths_box_are_kept_if_they_are_few():
    case = kept()
    assert numbers(case) == BOX.ravel().tolist()
    np.testing.assert_array_equal(case.truth, drawn()[1:3, 2:5, 3:7].ravel())
    assert case.probabilities.shape == (3, 24)
    assert case.probabilities.dtype == np.float32
    assert (case.case, case.patient, case.fold, case.row) == ("case", "p", "0", {"members": 2, "flags": []})


def test_of_many_some_are_drawn_by_the_name_of_the_case(monkeypatch):
    """The same ones each time, each once, none outside of the box, with their own labels."""
    monkeypatch.setattr(module, "MOST_VOXELS", 10)
    first, again, other = kept(name="a"), kept(name="a"), kept(name="b")
    assert numbers(first) == numbers(again) != numbers(other)
    assert len(set(numbers(first))) == 10
    assert set(numbers(first)) <= set(BOX.ravel().tolist())
    np.testing.assert_array_equal(first.truth, drawn().ravel()[numbers(first)])


def test_drawn_voxels_are_of_the_mask(monkeypatch):
    monkeypatch.setattr(module, "MOST_VOXELS", 3)
    mask = np.array([[False, True, True], [True, False, True]])
    assert set(drawn_voxels(mask, seed=0).tolist()) < {1, 2, 3, 5}
    assert drawn_voxels(mask & (np.arange(3) > 0), seed=0).tolist() == [1, 2, 5]  # not more than allowed: all


def test_voxels_of_the_ignore_label_are_left_out():
    """Four of the box, and one far away, which is no foreground and so does not make the box larger."""
    truth = drawn()
    truth[1, 2, 3:7] = 3
    truth[0, 0, 0] = 3
    case = kept(truth, scheme=LabelScheme(CLASSES, ignore_label=3), segmentation=np.where(truth == 3, 2, truth))
    assert numbers(case) == sorted(set(BOX.ravel().tolist()) - set(BOX[0, 0].tolist()))
    assert set(case.truth.tolist()) == {1, 2}
    assert case.dice == 1
    assert case.misses.foreground == 20


def test_an_empty_truth_keeps_no_voxel():
    case = kept(np.zeros(SHAPE, np.uint8))
    assert case.probabilities.shape == (3, 0)
    assert case.truth.size == 0
    assert math.isnan(case.dice)
    assert case.misses.foreground == 0


def test_the_truth_of_regions_is_a_mask_each():
    case = kept(scheme=REGIONS, probabilities=numbered(2))
    assert case.truth.dtype == bool
    assert case.truth.shape == (2, 24)
    assert case.truth.sum(axis=1).tolist() == [24, 8]
    empty = kept(np.zeros(SHAPE, np.uint8), scheme=REGIONS, probabilities=numbered(2))
    assert empty.truth.shape == (2, 0)


# --- Dice and misses ---


def test_dice_is_the_mean_over_the_structures_that_are_there():
    """Lesion called organ: 2·16/(16 + 24) = 0.8 and 0. As regions: 1 and 0."""
    all_organ = np.where(drawn() > 0, 1, 0)
    assert kept(segmentation=all_organ).dice == pytest.approx(0.4)
    case = kept(segmentation=all_organ, scheme=REGIONS, probabilities=numbered(2))
    assert case.dice == pytest.approx(0.5)
    organ_only = np.where(drawn() == 1, 1, 0)
    assert kept(organ_only, segmentation=organ_only).dice == 1  # no lesion anywhere


@pytest.mark.parametrize(
    ("regions", "values", "foreground"),
    [(False, (0.7, 0.1, 0.2), 0.3), (True, (0.3, 0.2), 0.3)],  # a sum over classes, the largest of regions
)
def test_misses_count_all_true_foreground_by_its_probability(regions, values, foreground):
    """24 voxels with 0.3: masks with a threshold above it miss all, those below none."""
    probabilities = np.stack([np.full(SHAPE, value) for value in values])
    scheme = REGIONS if regions else SCHEME
    rates = kept(scheme=scheme, probabilities=probabilities).misses.false_negative_rates()
    np.testing.assert_array_equal(rates, (foreground < THRESHOLDS).astype(float))


def test_misses_are_counted_on_all_voxels(monkeypatch):
    monkeypatch.setattr(module, "MOST_VOXELS", 5)
    assert kept().misses.foreground == 24


def test_without_probabilities_a_case_cannot_be_kept():
    prediction = CasePrediction("heart", drawn(), {}, {"flags": []}, {})
    with pytest.raises(ValueError, match=r"probabilities of every case; heart has none\."):
        calibration_case(prediction, drawn(), SCHEME, patient="p", fold="0")
