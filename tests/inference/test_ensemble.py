"""One case and its members, with logits chosen so that the outcome can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_ext.inference.ensemble import CaseEnsemble, Pass, PreparedCase
from nnunet_ext.inference.members import MemberRule
from nnunet_ext.inference.model import Model, load_model
from nnunet_ext.inference.sliding_window import tile_image

TWO_LABELS = {"background": 0, "organ": 1}
SHAPE = (1, 1, 4)  # (z, y, x): four voxels in a row
NO_TILES = tile_image(torch.zeros(1, 1, 4, 4), (4, 4))  # the network does not run here


def prepared(box_x: slice, transpose_forward: Sequence[int] = (0, 1, 2)) -> PreparedCase:
    """The case of four voxels, of which a model saw those of a box, at the image's own spacing."""
    box = [slice(0, 1), slice(0, 1), box_x]
    properties = {
        "spacing": [4.0, 1.0, 1.0],
        "shape_before_cropping": tuple(SHAPE[axis] for axis in transpose_forward),
        "bbox_used_for_cropping": [[box[axis].start, box[axis].stop] for axis in transpose_forward],
        "shape_after_cropping_and_before_resampling": tuple(
            box[axis].stop - box[axis].start for axis in transpose_forward
        ),
    }
    return PreparedCase(NO_TILES, properties)


def logits_of(*organ: float, transpose_forward: Sequence[int] = (0, 1, 2)) -> torch.Tensor:
    """Logits (2, z, y, x) whose softmax gives the organ these probabilities along x."""
    p = torch.tensor(organ).reshape(1, 1, -1)
    return torch.stack([torch.zeros_like(p), torch.logit(p)]).permute(0, *(1 + axis for axis in transpose_forward))


@pytest.fixture
def open_model(make_model_folder: Callable[..., Any]) -> Callable[..., Model]:
    names = (f"model {number}" for number in count())

    def open_folder(**settings: Any) -> Model:
        folder = make_model_folder(next(names), **{"labels": TWO_LABELS, **settings})
        return load_model(folder, None, MemberRule.parse("final"), device=torch.device("cpu"))

    return open_folder


def ensemble_of(
    models: Sequence[Model], cases: Sequence[PreparedCase], *, average: str = "probabilities", keep: bool = False
) -> CaseEnsemble:
    return CaseEnsemble(models, cases, average=average, with_variance=True, keep_members=keep)


def step(model: Model, name: str = "member", weight: float = 1.0) -> Pass:
    return Pass(name=name, member=model.members[0], flips=((),), weight=weight)


def test_probabilities_are_averaged_in_the_box_and_background_is_certain_outside(open_model):
    """Two members over voxels 1 and 2 of 4: organ (0.2 + 0.6)/2 = 0.4 and (0.9 + 0.7)/2 = 0.8."""
    model = open_model()
    ensemble = ensemble_of([model], [prepared(slice(1, 3))])
    ensemble.add(0, step(model), logits_of(0.2, 0.9))
    ensemble.add(0, step(model), logits_of(0.6, 0.7))
    result = ensemble.finish("case", maps=["entropy", "confidence", "variance"], save_probabilities=True)
    np.testing.assert_allclose(result.probabilities[:, 0, 0], [[1, 0.6, 0.2, 1], [0, 0.4, 0.8, 0]], atol=1e-6)
    assert result.segmentation.tolist() == [[[0, 0, 1, 0]]]
    assert result.segmentation.dtype == np.uint8
    # H(0.4) and H(0.8) by ln 2; outside all is certain
    entropies = [-(p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2) for p in (0.4, 0.8)]
    np.testing.assert_allclose(result.maps["entropy"][0, 0], [0, *entropies, 0], atol=1e-6)
    np.testing.assert_allclose(result.maps["confidence"][0, 0], [1, 0.6, 0.8, 1], atol=1e-6)
    # (0.2)² and (0.1)², once for each of the two classes
    np.testing.assert_allclose(result.maps["variance"][0, 0], [0, 0.08, 0.02, 0], atol=1e-6)
    assert list(result.maps) == ["entropy", "confidence", "variance"]


def test_the_row_is_about_the_whole_image(open_model):
    """One of the four voxels is organ: 4·1·1 mm³ = 0.004 ml. Members give it 2 and 1 voxels: Dice 2/3, CV 1/3."""
    model = open_model()
    ensemble = ensemble_of([model], [prepared(slice(1, 3))])
    ensemble.add(0, step(model), logits_of(0.6, 0.9))
    ensemble.add(0, step(model), logits_of(0.2, 0.9))
    row = ensemble.finish("case", maps=[], save_probabilities=False).row
    entropies = [-(p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2) for p in (0.4, 0.9)]
    assert row["members"] == 2
    assert row["mean_entropy"] == pytest.approx(sum(entropies) / 4, abs=1e-6)
    assert row["foreground_entropy"] == pytest.approx(entropies[1], abs=1e-6)
    assert row["pairwise_dice"] == pytest.approx(2 / 3)
    assert row["volume_ml_organ"] == pytest.approx(0.004)
    assert row["volume_cv_organ"] == pytest.approx(1 / 3)


def test_members_count_by_their_weight(open_model):
    """(3·0.2 + 1·0.8)/4 = 0.35."""
    model = open_model()
    ensemble = ensemble_of([model], [prepared(slice(0, 4))])
    ensemble.add(0, step(model, weight=3), logits_of(0.2, 0.2, 0.2, 0.2))
    ensemble.add(0, step(model, weight=1), logits_of(0.8, 0.8, 0.8, 0.8))
    probabilities = ensemble.finish("case", maps=[], save_probabilities=True).probabilities
    np.testing.assert_allclose(probabilities[1], np.full(SHAPE, 0.35), atol=1e-6)


@pytest.mark.parametrize(
    ("average", "expected"), [("probabilities", 1.61 / 3), ("logits", 1 / (1 + math.exp(0.6077)))]
)
def test_one_sure_member_outvotes_two_unsure_ones_only_in_logits(open_model, average, expected):
    """Organ 0.01, 0.8 and 0.8 of three members: the mean probability is 1.61/3 = 0.537, for the organ.

    Their logits are −4.595, 1.386 and 1.386; the mean is −0.6077, and its sigmoid 0.3526, against it.
    """
    model = open_model()
    ensemble = ensemble_of([model], [prepared(slice(0, 4))], average=average)
    for organ in (0.01, 0.8, 0.8):
        ensemble.add(0, step(model), logits_of(*[organ] * 4))
    result = ensemble.finish("case", maps=["entropy"], save_probabilities=True)
    np.testing.assert_allclose(result.probabilities[1], np.full(SHAPE, expected), atol=1e-4)
    assert set(result.segmentation.ravel()) == ({1} if average == "probabilities" else {0})
    # maps always tell of the members' probabilities
    p = 1.61 / 3
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2)
    np.testing.assert_allclose(result.maps["entropy"], np.full(SHAPE, entropy), atol=1e-5)


def test_models_with_other_axes_meet_in_the_image(open_model):
    """The second model sees x as its first axis. Its 0.1 0.3 0.5 0.9 along x must meet the first model's."""
    first, second = open_model(), open_model(transpose_forward=(2, 0, 1))
    cases = [prepared(slice(0, 4)), prepared(slice(0, 4), (2, 0, 1))]
    ensemble = ensemble_of([first, second], cases)
    ensemble.add(0, step(first), logits_of(0.3, 0.3, 0.3, 0.3))
    other = logits_of(0.1, 0.3, 0.5, 0.9, transpose_forward=(2, 0, 1))
    assert other.shape == (2, 4, 1, 1)
    ensemble.add(1, step(second), other)
    result = ensemble.finish("case", maps=["entropy"], save_probabilities=True)
    np.testing.assert_allclose(result.probabilities[1, 0, 0], [0.2, 0.3, 0.4, 0.6], atol=1e-6)
    assert result.segmentation.tolist() == [[[0, 0, 0, 1]]]
    assert result.maps["entropy"].shape == SHAPE


def test_where_one_model_cropped_more_it_is_sure_of_background(open_model):
    """The first saw voxels 1 and 2, the second 2 and 3. In 1 the second, in 3 the first says background."""
    first, second = open_model(), open_model(mirror_axes=None)
    ensemble = ensemble_of([first, second], [prepared(slice(1, 3)), prepared(slice(2, 4))])
    ensemble.add(0, step(first), logits_of(0.8, 0.8))
    ensemble.add(1, step(second), logits_of(0.6, 0.6))
    result = ensemble.finish("case", maps=[], save_probabilities=True)
    np.testing.assert_allclose(result.probabilities[1, 0, 0], [0, 0.4, 0.7, 0.3], atol=1e-6)
    np.testing.assert_allclose(result.probabilities.sum(0), np.ones(SHAPE), atol=1e-6)


def test_members_segmentations_are_whole_and_kept_only_on_request(open_model):
    model = open_model()
    kept, dropped = (ensemble_of([model], [prepared(slice(1, 3))], keep=keep) for keep in (True, False))
    for ensemble in (kept, dropped):
        ensemble.add(0, step(model, "a"), logits_of(0.9, 0.2))
        ensemble.add(0, step(model, "b"), logits_of(0.2, 0.9))
    segmentations = kept.finish("case", maps=[], save_probabilities=False).member_segmentations
    assert {name: labels.tolist() for name, labels in segmentations.items()} == {
        "a": [[[0, 1, 0, 0]]],
        "b": [[[0, 0, 1, 0]]],
    }
    result = dropped.finish("case", maps=[], save_probabilities=False)
    assert result.member_segmentations == {}
    assert result.probabilities is None


def test_regions_are_painted_in_their_order_and_are_absent_outside(open_model):
    """Voxel 1 is in "whole" alone: label 1. Voxel 2 is in both: the later "core" paints over it: label 2."""
    model = open_model(labels={"background": 0, "whole": [1, 2], "core": [2]}, regions_class_order=[1, 2])
    probabilities = torch.tensor([[0.9, 0.7], [0.4, 0.6]]).reshape(2, 1, 1, 2)  # whole, core
    ensemble = ensemble_of([model], [prepared(slice(1, 3))])
    ensemble.add(0, step(model), torch.logit(probabilities))
    result = ensemble.finish("case", maps=["confidence"], save_probabilities=True)
    np.testing.assert_allclose(result.probabilities[:, 0, 0], [[0, 0.9, 0.7, 0], [0, 0.4, 0.6, 0]], atol=1e-6)
    assert result.segmentation.tolist() == [[[0, 1, 2, 0]]]
    np.testing.assert_allclose(result.maps["confidence"][0, 0], [1, 0.6, 0.6, 1], atol=1e-6)
    assert result.row["volume_ml_whole"] == pytest.approx(0.008)  # labels 1 and 2
    assert result.row["volume_ml_core"] == pytest.approx(0.004)
