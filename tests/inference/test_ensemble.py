"""One case and its members, with logits chosen so that the outcome can be worked out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_ext.inference.accumulation.case_frame import CaseFrame, PreparedCase
from nnunet_ext.inference.accumulation.case_sums import CaseSums, SumOptions
from nnunet_ext.inference.accumulation.early_exit import InformationSettled, LabelSettled, SettledRule
from nnunet_ext.inference.finish import finish, stages_for
from nnunet_ext.inference.passes import Pass
from nnunet_ext.inference.sliding_window import tile_image
from nnunet_ext.inference.transforms.flip import IDENTITY
from nnunet_ext.labels import regions_of
from nnunet_ext.models.members import MemberRule
from nnunet_ext.models.model import Model, load_model
from nnunet_ext.options import OutputOptions
from nnunet_ext.prediction_folder.case_files import CasePrediction

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
    models: Sequence[Model],
    cases: Sequence[PreparedCase],
    *,
    average: str = "probabilities",
    keep: bool = False,
    early_exit: SettledRule | None = None,
    fast_resampling: bool = False,
) -> CaseSums:
    options = SumOptions(average=average, with_variance=True, keep_members=keep, fast_resampling=fast_resampling)
    return CaseSums(CaseFrame(models, cases), models[0].labels, options, early_exit)


def finished(sums: CaseSums, **fields: Any) -> CasePrediction:
    """What is written for the case, without a calibration."""
    options = OutputOptions(**fields)
    structures = regions_of(sums.frame.models[0].dataset_json)
    return finish("case", sums, structures, stages_for(options, None), options)


def step(model: Model, name: str = "member", weight: float = 1.0) -> Pass:
    return Pass(name=name, member=model.members[0], transforms=(IDENTITY,), weight=weight)


def test_probabilities_are_averaged_in_the_box_and_background_is_certain_outside(open_model):
    """Two members over voxels 1 and 2 of 4: organ (0.2 + 0.6)/2 = 0.4 and (0.9 + 0.7)/2 = 0.8."""
    model = open_model()
    ensemble = ensemble_of([model], [prepared(slice(1, 3))])
    ensemble.add(0, step(model), logits_of(0.2, 0.9))
    ensemble.add(0, step(model), logits_of(0.6, 0.7))
    result = finished(ensemble, maps=["entropy", "confidence", "variance"], save_probabilities=True)
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
    row = finished(ensemble, maps=[], save_probabilities=False).row
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
    probabilities = finished(ensemble, maps=[], save_probabilities=True).probabilities
    np.testing.assert_allclose(probabilities[1], np.full(SHAPE, 0.35), atol=1e-6)


@pytest.mark.parametrize(
    ("average", "expected"), [("probabilities", 1.61 / 3), ("logits", 1 / (1 + math.exp(0.6077)))]
)
def test_one_confident_member_outvotes_two_uncertain_ones_only_in_logits(open_model, average, expected):
    """Organ 0.01, 0.8 and 0.8 of three members: the mean probability is 1.61/3 = 0.537, for the organ.

    Their logits are −4.595, 1.386 and 1.386; the mean is −0.6077, and its sigmoid 0.3526, against it.
    """
    model = open_model()
    ensemble = ensemble_of([model], [prepared(slice(0, 4))], average=average)
    for organ in (0.01, 0.8, 0.8):
        ensemble.add(0, step(model), logits_of(*[organ] * 4))
    result = finished(ensemble, maps=["entropy"], save_probabilities=True)
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
    result = finished(ensemble, maps=["entropy"], save_probabilities=True)
    np.testing.assert_allclose(result.probabilities[1, 0, 0], [0.2, 0.3, 0.4, 0.6], atol=1e-6)
    assert result.segmentation.tolist() == [[[0, 0, 0, 1]]]
    assert result.maps["entropy"].shape == SHAPE


def test_where_a_model_cropped_more_it_predicts_background_for_certain(open_model):
    """The first saw voxels 1 and 2, the second 2 and 3. In 1 the second, in 3 the first says background."""
    first, second = open_model(), open_model(mirror_axes=None)
    ensemble = ensemble_of([first, second], [prepared(slice(1, 3)), prepared(slice(2, 4))])
    ensemble.add(0, step(first), logits_of(0.8, 0.8))
    ensemble.add(1, step(second), logits_of(0.6, 0.6))
    result = finished(ensemble, maps=[], save_probabilities=True)
    np.testing.assert_allclose(result.probabilities[1, 0, 0], [0, 0.4, 0.7, 0.3], atol=1e-6)
    np.testing.assert_allclose(result.probabilities.sum(0), np.ones(SHAPE), atol=1e-6)


def test_members_segmentations_are_whole_and_kept_only_on_request(open_model):
    model = open_model()
    kept, dropped = (ensemble_of([model], [prepared(slice(1, 3))], keep=keep) for keep in (True, False))
    for ensemble in (kept, dropped):
        ensemble.add(0, step(model, "a"), logits_of(0.9, 0.2))
        ensemble.add(0, step(model, "b"), logits_of(0.2, 0.9))
    segmentations = finished(kept, maps=[], save_probabilities=False).member_segmentations
    assert {name: labels.tolist() for name, labels in segmentations.items()} == {
        "a": [[[0, 1, 0, 0]]],
        "b": [[[0, 0, 1, 0]]],
    }
    result = finished(dropped, maps=[], save_probabilities=False)
    assert result.member_segmentations == {}
    assert result.probabilities is None


def test_regions_are_painted_in_their_order_and_are_absent_outside(open_model):
    """Voxel 1 is in "whole" alone: label 1. Voxel 2 is in both: the later "core" paints over it: label 2."""
    model = open_model(labels={"background": 0, "whole": [1, 2], "core": [2]}, regions_class_order=[1, 2])
    probabilities = torch.tensor([[0.9, 0.7], [0.4, 0.6]]).reshape(2, 1, 1, 2)  # whole, core
    ensemble = ensemble_of([model], [prepared(slice(1, 3))])
    ensemble.add(0, step(model), torch.logit(probabilities))
    result = finished(ensemble, maps=["confidence"], save_probabilities=True)
    np.testing.assert_allclose(result.probabilities[:, 0, 0], [[0, 0.9, 0.7, 0], [0, 0.4, 0.6, 0]], atol=1e-6)
    assert result.segmentation.tolist() == [[[0, 1, 2, 0]]]
    np.testing.assert_allclose(result.maps["confidence"][0, 0], [1, 0.6, 0.6, 1], atol=1e-6)
    assert result.row["volume_ml_whole"] == pytest.approx(0.008)  # labels 1 and 2
    assert result.row["volume_ml_core"] == pytest.approx(0.004)


# --- before or behind the softmax ---


def test_stock_resamples_logits_and_fast_resampling_probabilities(open_model):
    """The organ has 0.2 and 0.8 in two voxels that become four, of which the middle ones lie a quarter of the way.

    The logits are -ln 4 and ln 4; between them -ln 2 and ln 2, which stand for 1/3 and 2/3. The probabilities between
    them are 0.2 + 0.6/4 = 0.35 and 0.65.
    """
    model = open_model(spacing_mm=(1.0, 2.0))
    for fast, expected in ((False, [0.2, 1 / 3, 2 / 3, 0.8]), (True, [0.2, 0.35, 0.65, 0.8])):
        ensemble = ensemble_of([model], [prepared(slice(0, 4))], fast_resampling=fast)
        ensemble.add(0, step(model), logits_of(0.2, 0.8))
        result = finished(ensemble, maps=[], save_probabilities=True)
        np.testing.assert_allclose(result.probabilities[1, 0, 0], expected, atol=1e-6)
        assert result.segmentation.tolist() == [[[0, 0, 1, 1]]]


def test_fast_resampling_averages_probabilities_of_members_and_is_certain_outside(open_model):
    """One sees voxels 1 and 2, the other 2 and 3: (0.2 + 0)/2, (0.8 + 0.4)/2 and (0 + 0.6)/2."""
    first, second = open_model(), open_model()
    ensemble = ensemble_of([first, second], [prepared(slice(1, 3)), prepared(slice(2, 4))], fast_resampling=True)
    ensemble.add(0, step(first), logits_of(0.2, 0.8))
    ensemble.add(1, step(second), logits_of(0.4, 0.6))
    result = finished(ensemble, maps=[], save_probabilities=True)
    np.testing.assert_allclose(result.probabilities[1, 0, 0], [0, 0.1, 0.6, 0.3], atol=1e-6)


def test_fast_resampling_is_nnunets_resampling_of_the_softmax(open_model):
    """4 x 6 x 5 voxels become 6 x 9 x 10, by nnU-Net's own function, which is scikit-image in double precision."""
    model = open_model(configuration="3d_fullres", spacing_mm=(1.5, 1.5, 2.0))
    shape, spacing = (6, 9, 10), [1.0, 1.0, 1.0]
    logits = 3 * torch.randn((2, 4, 6, 5), generator=torch.Generator().manual_seed(0))
    properties = {
        "spacing": spacing,
        "shape_before_cropping": shape,
        "bbox_used_for_cropping": [[0, size] for size in shape],
        "shape_after_cropping_and_before_resampling": shape,
    }
    expected = model.configuration.resampling_fn_probabilities(
        torch.softmax(logits, 0).numpy(), shape, model.configuration.spacing, spacing
    )
    ensemble = ensemble_of([model], [PreparedCase(NO_TILES, properties)], fast_resampling=True)
    ensemble.add(0, step(model), logits)
    result = finished(ensemble, maps=[], save_probabilities=True)
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-6)


def test_where_nothing_is_resampled_both_ways_are_the_same(open_model):
    model = open_model()
    found = []
    for fast in (False, True):
        ensemble = ensemble_of([model], [prepared(slice(1, 3))], fast_resampling=fast)
        ensemble.add(0, step(model), logits_of(0.2, 0.9))
        found.append(finished(ensemble, maps=["entropy"], save_probabilities=True))
    np.testing.assert_array_equal(found[0].probabilities, found[1].probabilities)
    np.testing.assert_array_equal(found[0].maps["entropy"], found[1].maps["entropy"])


# --- members that are left out ---


def test_closed_voxels_keep_their_mean_and_open_ones_accumulate_members(open_model):
    """Three members over four voxels. After two, sums for the organ are 1.8, 1.0, 0.2 and 1.3; it leads or lags by
    1.6, 0, 1.6 and 0.6. So the first and third are settled, with 0.9 and 0.1; the last member says 0.6 and counts in
    the others: (1.0 + 0.6)/3 and (1.3 + 0.6)/3."""
    model = open_model()
    ensemble = ensemble_of([model], [prepared(slice(0, 4))], early_exit=LabelSettled())
    ensemble.settle(3.0)
    for number, organ in enumerate([(0.9, 0.6, 0.1, 0.7), (0.9, 0.4, 0.1, 0.6), (0.6, 0.6, 0.6, 0.6)]):
        ensemble.add(0, step(model), logits_of(*organ))
        ensemble.settle(2.0 - number)
        if number == 1:
            assert ensemble.open_voxels.tolist() == [[[False, True, False, True]]]
    result = finished(ensemble, maps=["variance"], save_probabilities=True)
    np.testing.assert_allclose(result.probabilities[1, 0, 0], [0.9, 1.6 / 3, 0.1, 1.9 / 3], atol=1e-6)
    assert result.segmentation.tolist() == [[[1, 1, 0, 1]]]
    # of two equal members 0; of 0.6, 0.4, 0.6 and of 0.7, 0.6, 0.6, for both of the classes
    variances = [0, 2 * np.var([0.6, 0.4, 0.6]), 0, 2 * np.var([0.7, 0.6, 0.6])]
    np.testing.assert_allclose(result.maps["variance"][0, 0], variances, atol=1e-6)


def test_where_a_member_did_not_run_its_segmentation_is_that_of_those_before(open_model):
    """As above, but what the last member says of the closed third voxel, "organ", is ignored. The first member has
    organ in voxels 1, 2 and 4, the others in 1 and 4."""
    model = open_model()
    ensemble = ensemble_of([model], [prepared(slice(0, 4))], early_exit=LabelSettled())
    for number, organ in enumerate([(0.9, 0.6, 0.1, 0.7), (0.9, 0.4, 0.1, 0.6), (0.9, 0.4, 0.9, 0.9)]):
        ensemble.add(0, step(model), logits_of(*organ))
        ensemble.settle(2.0 - number)
    row = finished(ensemble, maps=[], save_probabilities=False).row
    assert row["members"] == 3
    # Dice of 3 and 2 voxels of which 2 are common: 4/5, twice; of equal ones 1
    assert row["pairwise_dice"] == pytest.approx((0.8 + 0.8 + 1) / 3)
    assert row["volume_cv_organ"] == pytest.approx(np.std([3, 2, 2]) / np.mean([3, 2, 2]))


def test_a_member_that_need_not_run_at_all_counts_as_those_before_it(open_model):
    """All voxels lead by 1.8 after two of three: the third is counted without logits."""
    model = open_model()
    ensemble = ensemble_of([model], [prepared(slice(0, 4))], early_exit=LabelSettled())
    for _ in range(2):
        ensemble.add(0, step(model), logits_of(0.95, 0.05, 0.05, 0.95))
    ensemble.settle(1.0)
    assert not ensemble.open_voxels.any()
    ensemble.add_settled()
    result = finished(ensemble, maps=[], save_probabilities=True)
    assert result.row["members"] == 3
    assert result.row["pairwise_dice"] == 1
    np.testing.assert_allclose(result.probabilities[1, 0, 0], [0.95, 0.05, 0.05, 0.95], atol=1e-6)


def test_a_voxel_that_is_closed_stays_closed(open_model):
    """The mutual-information rule checks every voxel again, and might reopen one."""
    model = open_model()
    ensemble = ensemble_of(
        [model], [prepared(slice(0, 4))], early_exit=InformationSettled(tolerance=0.01, least_members=2)
    )
    for last in (0.5, 0.5, 0.9):
        ensemble.add(0, step(model), logits_of(0.5, 0.5, last, 0.1 if last == 0.5 else 0.9))
        ensemble.settle(5.0)
    # nothing moved from the first to the second member, so the third is not asked any more
    assert ensemble.open_voxels.tolist() == [[[False, False, False, False]]]
    np.testing.assert_allclose(ensemble.moments.mean()[1, 0, 0], [0.5, 0.5, 0.5, 0.1], atol=1e-6)


def test_no_member_can_be_taken_for_settled_before_anything_is(open_model):
    ensemble = ensemble_of([open_model()], [prepared(slice(0, 4))], early_exit=LabelSettled())
    with pytest.raises(RuntimeError, match="Nothing is settled yet"):
        ensemble.add_settled()


def with_open_columns(model: Model, *columns: int, transpose_forward: Sequence[int] = (0, 1, 2)) -> CaseSums:
    """A case of 1 x 4 x 10 voxels of which some columns are open."""
    axes = list(transpose_forward)
    shape = (1, 4, 10)
    properties = {
        "spacing": [1.0, 1.0, 1.0],
        "shape_before_cropping": tuple(shape[axis] for axis in axes),
        "bbox_used_for_cropping": [[0, shape[axis]] for axis in axes],
        "shape_after_cropping_and_before_resampling": tuple(shape[axis] for axis in axes),
    }
    tiled = tile_image(torch.zeros(1, *(shape[axis] for axis in axes)), (4, 4))
    ensemble = ensemble_of([model], [PreparedCase(tiled, properties)], early_exit=LabelSettled())
    ensemble.open_voxels = torch.zeros(shape, dtype=torch.bool)
    ensemble.open_voxels[..., list(columns)] = True
    return ensemble


def test_only_the_tiles_of_open_voxels_are_needed(open_model):
    """Tiles of four columns begin at 0, 2, 4 and 6. Column 8 is in the last one, column 3 in the first two."""
    model = open_model()
    assert [tile[2].start for tile in with_open_columns(model, 8).tiles_needed(0)] == [6]
    assert [tile[2].start for tile in with_open_columns(model, 3).tiles_needed(0)] == [0, 2]
    assert with_open_columns(model).tiles_needed(0) == []


def test_open_voxels_are_turned_into_the_networks_axes(open_model):
    """The columns are the network's rows: tiles of four rows begin at 0, 2, 4 and 6."""
    ensemble = with_open_columns(open_model(transpose_forward=(0, 2, 1)), 8, transpose_forward=(0, 2, 1))
    assert [(tile[1].start, tile[2].start) for tile in ensemble.tiles_needed(0)] == [(6, 0)]


def test_all_tiles_are_needed_as_long_as_nothing_is_settled(open_model):
    ensemble = ensemble_of([open_model()], [prepared(slice(0, 4))], early_exit=LabelSettled())
    assert ensemble.tiles_needed(0) is None


def test_all_tiles_are_needed_where_resampling_may_read_further_than_to_its_neighbours(make_model_folder, open_model):
    """Splines of order 3 read the whole image. Where no voxel is open, not even they need anything."""
    folder = make_model_folder("splines", labels=TWO_LABELS)
    file = folder / "plans.json"
    plans = json.loads(file.read_text(encoding="utf-8"))
    plans["configurations"]["2d"]["resampling_fn_probabilities_kwargs"]["order"] = 3
    file.write_text(json.dumps(plans), encoding="utf-8")
    model = load_model(folder, None, MemberRule.parse("final"), device=torch.device("cpu"))
    assert with_open_columns(model, 8).tiles_needed(0) is None
    assert with_open_columns(model).tiles_needed(0) == []


def test_all_tiles_are_needed_of_a_model_that_cropped_in_another_way(open_model):
    """Its logits are placed into the common box; where no voxel is open it need not run either."""
    first, second = open_model(), open_model(mirror_axes=None)
    ensemble = ensemble_of([first, second], [prepared(slice(1, 3)), prepared(slice(2, 4))], early_exit=LabelSettled())
    ensemble.open_voxels = torch.tensor([[[True, False, False]]])
    assert ensemble.tiles_needed(1) is None
    ensemble.open_voxels = torch.tensor([[[False, False, False]]])
    assert ensemble.tiles_needed(1) == []


# --- transforms that do not see all voxels ---


@dataclass(frozen=True)
class Partial:
    """A transform whose vote counts as much as this at the four voxels."""

    votes: tuple[float, ...] = (1.0, 0.0, 0.5, 1.0)
    name = "partial"
    exact = False

    def apply(self, volume: torch.Tensor) -> torch.Tensor:
        return volume

    def undo(self, logits: torch.Tensor, volume: torch.Tensor) -> torch.Tensor:
        return logits

    def field_of_view(self, shape: Sequence[int], device: torch.device) -> torch.Tensor:
        return torch.tensor(self.votes).reshape(1, 1, -1)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_a_member_that_does_not_see_a_voxel_has_no_vote_there(open_model, average):
    """Organ 0.2 by the identity, 0.8 by the other. Probabilities: 0.5, 0.2, (0.2 + 0.8/2)/1.5 = 0.4, 0.5.

    The logits -1.386 and 1.386 average to 0, -1.386, -0.462, 0.
    """
    model = open_model()
    ensemble = ensemble_of([model], [prepared(slice(0, 4))], average=average, keep=True)
    ensemble.add(0, step(model, "plain"), logits_of(0.2, 0.2, 0.2, 0.2))
    ensemble.add(0, replace(step(model, "other"), transforms=(Partial(),)), logits_of(0.8, 0.8, 0.8, 0.8))
    result = finished(ensemble, maps=["variance"], save_probabilities=True)
    expected = [0.5, 0.2, 0.4, 0.5] if average == "probabilities" else [0.5, 0.2, 1 / (1 + math.exp(0.4621)), 0.5]
    np.testing.assert_allclose(result.probabilities[1, 0, 0], expected, atol=1e-4)
    # 0.3² twice, for two classes; nothing varies unseen; weights 1 and 1/2: (0.2² + 0.4²/2)/1.5 = 0.08, twice
    np.testing.assert_allclose(result.maps["variance"][0, 0], [0.18, 0, 0.16, 0.18], atol=1e-6)
    # with half a vote the segmentation is the member's own; without, it is that of the mean
    assert result.member_segmentations["other"].tolist() == [[[1, 0, 1, 1]]]


def test_a_fold_is_described_by_its_own_mean_where_its_member_saw_nothing(open_model):
    """The unseen second voxel: the fold's own mean says organ, that of all members background."""
    model = open_model()
    ensemble, fold = (ensemble_of([model], [prepared(slice(0, 4))]) for _ in range(2))
    ensemble.add(0, step(model, weight=5), logits_of(0.1, 0.1, 0.1, 0.1))
    ensemble.add(0, step(model), logits_of(0.9, 0.9, 0.9, 0.9), also=[fold])
    unseen = replace(step(model), transforms=(Partial((1.0, 0.0, 1.0, 1.0)),))
    ensemble.add(0, unseen, logits_of(0.9, 0.1, 0.9, 0.9), also=[fold])
    np.testing.assert_allclose(fold.moments.mean()[1, 0, 0], [0.9, 0.9, 0.9, 0.9], atol=1e-6)
    assert finished(fold).row["pairwise_dice"] == 1


# --- variance between transforms ---


def test_the_variance_between_transforms_is_within_members(open_model):
    """Member a: 0.2 and 0.6, a variance of 0.04 in both classes. Member b: 0.9 twice, none. The mean is 0.04.

    The second voxel is not seen by the second transform: there nothing varies.
    """
    model = open_model()
    options = SumOptions(with_transform_variance=True)
    sums = CaseSums(CaseFrame([model], [prepared(slice(0, 4))]), model.labels, options)
    variance = sums.transform_variance
    assert variance is not None
    for name, values in (("a", (0.2, 0.6)), ("b", (0.9, 0.9))):
        member = replace(model.members[0], name=name)
        one = Pass(name, member, (IDENTITY, Partial((1.0, 0.0, 1.0, 1.0))), 1.0)
        observe = variance.observer(0, one)
        for transform, value in zip(one.transforms, values, strict=True):
            observe(transform, logits_of(*[value] * 4))
        sums.add(0, one, logits_of(*[values[0]] * 4))
    result = finished(sums, maps=["tta_variance", "entropy"])
    np.testing.assert_allclose(result.maps["tta_variance"][0, 0], [0.04, 0, 0.04, 0.04], atol=1e-6)
    assert list(result.maps) == ["tta_variance", "entropy"]


def test_it_is_the_same_with_transforms_as_members(open_model):
    model = open_model()
    sums = CaseSums(
        CaseFrame([model], [prepared(slice(0, 4))]), model.labels, SumOptions(with_transform_variance=True)
    )
    variance = sums.transform_variance
    assert variance is not None
    for transform, value in ((IDENTITY, 0.2), (Partial((1.0,) * 4), 0.6)):
        one = Pass("a", model.members[0], (transform,), 0.5)
        variance.observer(0, one)(transform, logits_of(*[value] * 4))
    np.testing.assert_allclose(variance.as_map()[0, 0], [0.08] * 4, atol=1e-6)
