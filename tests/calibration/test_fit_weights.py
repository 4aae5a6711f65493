"""Weights of several models on tiny cases: the optimum by hand, and when equal weights are kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from nnunet_ext.calibration.ensemble_case import EnsembleCase, ensemble_case
from nnunet_ext.calibration.fit_weights import WeightedEnsemble, best_models, fit_ensemble_weights, learned_weights
from nnunet_ext.calibration.weighted_dice import sharpened_dice
from nnunet_ext.calibration.weights_text import weights_lines
from nnunet_ext.labels import LabelScheme

CLASSES = LabelScheme({"left": (1,), "right": (2,)})
REGIONS = LabelScheme({"left": (1,), "right": (2,)}, regions=True)
TRUTH = np.array([1, 1, 2, 2, 0, 0])


def case_of(
    models: Sequence[np.ndarray], scheme: LabelScheme = CLASSES, *, patient: str = "p", fold: str = "0"
) -> EnsembleCase:
    return ensemble_case(f"{patient}_{fold}", np.stack(models), TRUTH, scheme, patient=patient, fold=fold)


def certain(*labels: int) -> np.ndarray:
    """Probabilities (3, 6) of a model that is certain of these labels."""
    return np.eye(3)[:, list(labels)]


# finds the left with 0.8 and misses the right, and the other way round
LEFT = np.array([[0.2, 0.2, 0.9, 0.9, 1, 1], [0.8, 0.8, 0, 0, 0, 0], [0, 0, 0.1, 0.1, 0, 0]])
RIGHT = np.array([[0.9, 0.9, 0.2, 0.2, 1, 1], [0.1, 0.1, 0, 0, 0, 0], [0, 0, 0.8, 0.8, 0, 0]])


def ensemble_of(scheme: LabelScheme, models: int = 2) -> WeightedEnsemble:
    return WeightedEnsemble(
        models=tuple("abcd"[:models]),
        outputs=tuple(scheme.outputs()),
        regions=scheme.regions,
        settings={},
        fitted_on={"folds": ["0", "1"], "members": []},
    )


# --- the weights ---


def test_the_optimum_by_hand():
    """Each model finds one region and leaves out the other. With the weight w, that region's soft Dice is
    2w / (w + 1). 1 - 2w / (w + 1) + pull · 2 (w - 1/2)² has its minimum where 2 / (1 + w)² = 4 pull (w - 1/2).
    At w = 3/4 that is 32/49 = pull.
    """
    models = [certain(1, 1, 0, 0, 0, 0)[1:], certain(0, 0, 2, 2, 0, 0)[1:]]
    found = learned_weights([case_of(models, REGIONS)], 32 / 49, regions=True, sharpness=1.0)
    np.testing.assert_allclose(found, [[0.75, 0.25], [0.25, 0.75]], atol=1e-4)


def test_without_a_pull_a_model_that_is_right_gets_everything():
    models = [certain(1, 1, 0, 0, 0, 0)[1:], certain(0, 0, 2, 2, 0, 0)[1:]]
    found = learned_weights([case_of(models, REGIONS)], 0.0, regions=True, sharpness=1.0)
    np.testing.assert_allclose(found, [[1, 0], [0, 1]], atol=1e-3)


def test_of_classes_each_model_gets_the_one_that_it_finds():
    found = learned_weights([case_of([LEFT, RIGHT])], 0.01, regions=False)
    assert found[0, 1] > 0.9
    assert found[1, 2] > 0.9
    np.testing.assert_allclose(found[:, 0], found[:, 1:].mean(axis=1))  # the background
    np.testing.assert_allclose(found.sum(axis=0), [1, 1, 1])


def test_an_unconfident_model_that_corrects_a_confident_one_keeps_a_share():
    """The first is right with 0.95 but for one voxel in three, where it is wrong with 0.6; the second is right with
    0.75 everywhere. Alone the first has the larger soft Dice, together they have no error: with the weight w of the
    first, 0.4 w + 0.75 (1 - w) > 1/2 where w < 0.71.
    """
    truth = np.array([[1, 1, 1, 0, 0, 0]], dtype=float)
    confident = np.where(truth > 0, [0.95, 0.95, 0.4, 0, 0, 0], [0, 0, 0, 0.05, 0.05, 0.6])
    unconfident = np.where(truth > 0, 0.75, 0.25)
    scheme = LabelScheme({"organ": (1,)}, regions=True)
    case = ensemble_case("c", np.stack([confident, unconfident]), truth[0].astype(int), scheme, patient="p", fold="0")
    by_soft_dice, by_sharp_dice = (
        learned_weights([case], 0.0, regions=True, sharpness=sharpness) for sharpness in (1.0, 8.0)
    )
    assert by_soft_dice[0, 0] > 0.71 > by_sharp_dice[0, 0]


@pytest.mark.parametrize("scheme", [CLASSES, REGIONS])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_identical_models_share_evenly(scheme, count):
    """A single model has the weight 1."""
    model = LEFT if scheme is CLASSES else LEFT[1:]
    found = learned_weights([case_of([model] * count, scheme)], 0.01, regions=scheme.regions)
    np.testing.assert_allclose(found, np.full(found.shape, 1 / count), atol=1e-6)


def test_a_class_that_no_case_has_keeps_equal_weights():
    models = [certain(1, 1, 0, 0, 0, 0)[1:], certain(0, 0, 2, 2, 0, 0)[1:]]
    left = np.where(TRUTH == 1, 1, 0)
    case = ensemble_case("case", np.stack(models), left, REGIONS, patient="p", fold="0")
    found = learned_weights([case], 0.01, regions=True)
    assert found[:, 1].tolist() == [0.5, 0.5]
    assert found[0, 0] > 0.7


@pytest.mark.parametrize("scheme", [CLASSES, REGIONS])
def test_a_class_that_a_case_lacks_counts_alike_with_no_and_hardly_any_probability(scheme):
    """A case without the right counts only for the left, whatever little of the right its models predict."""
    first = 0 if scheme is CLASSES else 1
    left = np.where(TRUTH == 1, 1, 0)
    found = []
    for little in (0.0, 1e-5):
        unsure = np.array([[0.3, 0.3, 0.9, 0.9, 0.9, 0.9], [0.7, 0.7, 0.1, 0.1, 0.1, 0.1], [little] * 6])[first:]
        unsure[0] -= little if scheme is CLASSES else 0
        lacks = ensemble_case("lacks", np.stack([unsure] * 2), left, scheme, patient="q", fold="0")
        equal = torch.full(lacks.probabilities.shape[:2], 0.5, dtype=torch.float64)
        assert sharpened_dice(lacks, equal, regions=scheme.regions, sharpness=8.0)[-1] == 0
        cases = [case_of([LEFT[first:], RIGHT[first:]], scheme), lacks]
        found.append(learned_weights(cases, 0.01, regions=scheme.regions))
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
    assert found[0][0, -2] > 0.8  # of the left, and not equal weights


@pytest.mark.parametrize("scheme", [CLASSES, REGIONS])
def test_a_case_of_which_nothing_is_sampled_does_not_change_the_fit(scheme):
    """All models are certain that there is nothing, and they are right."""
    first = 0 if scheme is CLASSES else 1
    nothing = np.stack([certain(0, 0, 0, 0, 0, 0)[first:]] * 2)
    empty = ensemble_case("empty", nothing, np.zeros(6, int), scheme, patient="q", fold="0")
    assert empty.probabilities.shape[2] == 0
    others = [case_of([LEFT[first:], RIGHT[first:]], scheme)]
    alone, beside = (learned_weights(cases, 0.01, regions=scheme.regions) for cases in (others, [*others, empty]))
    np.testing.assert_array_equal(beside, alone)
    assert alone[0, -2] > 0.8


def test_the_best_models_of_each_class():
    """The first finds the left, the second the right, the third half of both; the background has the mean."""
    third = certain(1, 0, 2, 0, 0, 0)
    cases = [case_of([LEFT, RIGHT, third])]
    assert best_models(cases, 1, False).T.tolist() == [[0.5, 0.5, 0], [1, 0, 0], [0, 1, 0]]
    assert best_models(cases, 2, False).T.tolist() == [[0.25, 0.25, 0.5], [0.5, 0, 0.5], [0, 0.5, 0.5]]


# --- the gain ---


@pytest.fixture
def alike() -> list[EnsembleCase]:
    """Six patients in two folds, for all of whom the same model is right about the same class."""
    return [case_of([LEFT, RIGHT], patient=f"p{number}", fold=str(number % 2)) for number in range(6)]


@pytest.mark.parametrize("best", [None, 1])
def test_better_weights_are_kept(alike, best):
    """Equal weights: 0.45 for the left, 0.55 for the background. The fitted ones find both."""
    found = fit_ensemble_weights(alike, ensemble_of(CLASSES), pull=0.01, best=best)
    assert found.method == ("learned" if best is None else "best")
    assert found.values[1][0] > 0.9
    gain = found.figures["gain"]["mean"]
    assert (gain["equal"], gain["fitted"], gain["low"], gain["high"]) == (0, 1, 1, 1)
    assert (gain["cases"], gain["patients"]) == (6, 6)
    assert found.figures["models"] == [{"left": 1.0, "right": 0.0}, {"left": 0.0, "right": 1.0}]
    assert (found.fitted_on["cases"], found.fitted_on["pull"]) == (6, 0.01 if best is None else None)
    lines = weights_lines(found)
    assert "left 0.0000 1.0000 +1.0000 (+1.0000 to +1.0000)" in [" ".join(line.split()) for line in lines]
    assert lines[-1].startswith("Better than equal weights")


def test_what_helps_one_fold_and_harms_the_other_is_not_kept():
    """In each fold another model is right about everything, so weights of the other fold are wrong."""
    right, wrong = certain(*TRUTH), certain(2, 2, 1, 1, 0, 0)
    right, wrong = 0.6 * right + 0.4 * wrong, 0.35 * right + 0.65 * wrong
    cases = [
        case_of([right, wrong] if number % 2 else [wrong, right], patient=f"p{number}", fold=str(number % 2))
        for number in range(6)
    ]
    found = fit_ensemble_weights(cases, ensemble_of(CLASSES), pull=0.01)
    assert found.method == "equal"
    assert set(found.values) == {(0.5, 0.5)}
    assert found.figures["gain"]["mean"]["high"] <= 0
    assert weights_lines(found)[-1].endswith("Equal weights are written.")


def test_a_patient_in_two_folds_is_on_one_side_only():
    """All cases are of patients that both folds have: nothing is left to fit to, so nothing shows a gain."""
    cases = [case_of([LEFT, RIGHT], patient=patient, fold=fold) for patient in ("p0", "p1") for fold in ("0", "1")]
    found = fit_ensemble_weights(cases, ensemble_of(CLASSES), pull=0.01)
    assert found.method == "equal"
    assert found.figures["gain"]["mean"]["cases"] == 0


def test_one_patient_is_too_few():
    with pytest.raises(ValueError, match="at least two patients; found 1 cases of 1"):
        fit_ensemble_weights([case_of([LEFT, RIGHT])], ensemble_of(CLASSES), pull=0.01)
