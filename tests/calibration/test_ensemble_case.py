"""What is kept of a case is enough for the Dice of any weights, as the whole image would give it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_ext.calibration.ensemble_case import MOST_VOXELS, drawn_by_label, ensemble_case, settled_voxels
from nnunet_ext.calibration.weighted_dice import dice_with, sharpened_dice
from nnunet_ext.labels import LabelScheme

CLASSES = LabelScheme({"left": (1,), "right": (2,)})
REGIONS = LabelScheme({"whole": (1, 2), "core": (2,)}, regions=True)
WEIGHTS = np.array([[0.2, 0.7, 0.5], [0.8, 0.3, 0.5]])  # of two models
SHAPE = (4, 10, 12)


def random_case(*, regions: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (2, C, *SHAPE) of two models that are mostly certain, and a truth."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(SHAPE, np.uint8)
    truth[:, 2:6, 2:6], truth[1:3, 3:5, 3:8] = 1, 2
    outputs = (REGIONS if regions else CLASSES).outputs()
    masks = np.stack([np.isin(truth, labels) for labels in outputs.values()])
    logits = 8.0 * masks - 4 + rng.normal(0, 3, (2, len(outputs), *SHAPE))
    if regions:
        return 1 / (1 + np.exp(-2 * logits)), truth
    exponentials = np.exp(2 * logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True), truth


def mixed(probabilities: np.ndarray, weights: np.ndarray, *, regions: bool) -> np.ndarray:
    """(C, *SHAPE): the definition, on the whole image."""
    values = np.einsum("kc,kc...->c...", weights, probabilities)
    return values if regions else values / values.sum(axis=0)


@pytest.mark.parametrize("regions", [False, True])
def test_dice_of_weights_is_that_of_the_whole_image(regions):
    scheme = REGIONS if regions else CLASSES
    probabilities, truth = random_case(regions=regions)
    case = ensemble_case("case", probabilities, truth, scheme, patient="p", fold="0")
    assert 0 < case.probabilities.shape[2] < truth.size
    weights = WEIGHTS[:, : case.probabilities.shape[1]]
    whole = mixed(probabilities, weights, regions=regions)
    masks = np.stack([np.isin(truth, labels) for labels in scheme.outputs().values()])
    axes = (1, 2, 3)
    predicted = whole > 0.5 if regions else whole.argmax(axis=0) == np.arange(3).reshape(-1, 1, 1, 1)
    hard = 2 * (predicted & masks).sum(axis=axes) / (predicted.sum(axis=axes) + masks.sum(axis=axes))
    np.testing.assert_allclose(dice_with(case, weights, regions=regions), hard)
    sharp = whole**2 / (whole**2 + (1 - whole) ** 2) if regions else whole**2 / (whole**2).sum(axis=0)
    soft = 2 * (sharp * masks).sum(axis=axes) / (sharp.sum(axis=axes) + masks.sum(axis=axes))
    # voxels where all models agree count as segmented
    found = sharpened_dice(case, torch.from_numpy(weights), regions=regions, sharpness=2.0)
    np.testing.assert_allclose(found.numpy(), soft, atol=1e-3)
    hardest = sharpened_dice(case, torch.from_numpy(weights), regions=regions, sharpness=1e6)
    np.testing.assert_allclose(hardest.numpy(), hard)


@pytest.mark.parametrize("regions", [False, True])
def test_models_alone_have_their_own_dice(regions):
    scheme = REGIONS if regions else CLASSES
    probabilities, truth = random_case(regions=regions)
    case = ensemble_case("case", probabilities, truth, scheme, patient="p", fold="0")
    for number, alone in enumerate(np.eye(2)):
        weights = np.repeat(alone[:, None], case.probabilities.shape[1], axis=1)
        np.testing.assert_allclose(case.model_dice[number], dice_with(case, weights, regions=regions))


def test_ignored_voxels_count_nowhere():
    """As if the ignored slices were not in the image."""
    probabilities, truth = random_case(regions=False)
    scheme = LabelScheme(CLASSES.structures, ignore_label=3)
    ignored = truth.copy()
    ignored[2:] = 3
    with_ignored = ensemble_case("case", probabilities, ignored, scheme, patient="p", fold="0")
    cut = ensemble_case("case", probabilities[:, :, :2], truth[:2], CLASSES, patient="p", fold="0")
    for name in ("probabilities", "truth", "truth_voxels", "settled_hits", "model_dice"):
        np.testing.assert_array_equal(getattr(with_ignored, name), getattr(cut, name))


def test_voxels_are_settled_where_all_models_agree():
    """Agreed; certain but contradicting; undecided. Regions may all be absent, of classes one is present."""
    first = np.array([[0.995, 1.0, 0.5], [0.005, 0.0, 0.5]])
    second = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    assert settled_voxels(np.stack([first, second]), regions=False).tolist() == [True, False, False]
    absent = np.full((2, 2, 1), 0.001)
    assert settled_voxels(absent, regions=True).tolist() == [True]
    assert settled_voxels(absent, regions=False).tolist() == [False]


def test_small_structures_are_drawn_whole():
    labels = np.zeros(3 * MOST_VOXELS, np.uint8)
    labels[:10] = 1
    drawn, stands_for = drawn_by_label(np.arange(len(labels)), labels, seed=0)
    assert len(drawn) == len(set(drawn.tolist())) == MOST_VOXELS
    assert drawn[:10].tolist() == list(range(10))
    assert stands_for[:10].tolist() == [1] * 10
    assert stands_for.sum() == pytest.approx(len(labels))
