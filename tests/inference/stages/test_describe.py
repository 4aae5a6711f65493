"""Maps and the row of a case, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nnunet_ext.inference.accumulation.agreement import crop_to_foreground
from nnunet_ext.inference.accumulation.maps import MAP_FACTS, MAPS, confidence, uncertainty_maps
from nnunet_ext.inference.accumulation.moments import Moments
from nnunet_ext.inference.stages.describe import ImageSize, case_row, coefficient_of_variation
from nnunet_ext.options import MAP_NAMES, OutputOptions
from nnunet_ext.prediction_folder.contents import ANY_LABEL, COLUMNS


def moments_of(*members: list[float], regions: bool = False) -> Moments:
    """Moments of a single voxel."""
    moments = Moments(regions=regions)
    for member in members:
        moments.add(torch.tensor(member)[:, None])
    return moments


# --- maps ---


def test_maps_of_two_certain_members_that_contradict_each_other():
    """Of four classes: H = ln 2 of at most ln 4, that is 1/2, all of it disagreement. Two classes vary by 1/4."""
    maps = uncertainty_maps(moments_of([1, 0, 0, 0], [0, 0, 1, 0]), list(MAPS))
    assert {name: values.tolist() for name, values in maps.items()} == {
        "entropy": [pytest.approx(0.5, abs=1e-6)],
        "mutual_information": [pytest.approx(0.5, abs=1e-6)],
        "expected_entropy": [0],
        "variance": [pytest.approx(0.5)],
        "confidence": [pytest.approx(0.5)],
    }


def test_maps_of_two_members_that_are_equally_uncertain():
    """All of H(1/2, 1/2, 0, 0) / ln 4 = 1/2 is the members' own; nothing varies."""
    maps = uncertainty_maps(moments_of([0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0]), list(MAPS))
    assert maps["entropy"].tolist() == maps["expected_entropy"].tolist() == [pytest.approx(0.5, abs=1e-6)]
    assert maps["mutual_information"].tolist() == maps["variance"].tolist() == [0]


def test_maps_of_regions():
    """Regions at 1/2 and 1: ln 2 of at most 2 ln 2. The least certain decision is the first: 1/2."""
    maps = uncertainty_maps(moments_of([0.5, 1.0], regions=True), ["entropy", "confidence"])
    assert maps["entropy"].tolist() == [pytest.approx(0.5, abs=1e-6)]
    assert maps["confidence"].tolist() == [0.5]


def test_confidence_of_classes_and_of_regions():
    """Of regions 0.9, 0.2 and 0.6 the decisions are in, out and in, with probabilities of 0.9, 0.8 and 0.6."""
    assert confidence(torch.tensor([[0.2], [0.5], [0.3]]), regions=False).tolist() == [0.5]
    assert confidence(torch.tensor([[0.9], [0.2], [0.6]]), regions=True).tolist() == pytest.approx([0.6])


@pytest.mark.parametrize("classes", range(2, 40))
def test_the_entropy_map_of_even_odds_is_exactly_one(classes):
    """Rounding would give 1.0000001 for some numbers of classes, which is outside a colour scale from 0 to 1."""
    maps = uncertainty_maps(moments_of([1 / classes] * classes), ["entropy", "mutual_information"])
    assert maps["entropy"].dtype == np.float32
    assert 1 - 1e-6 < maps["entropy"].item() <= 1
    assert maps["mutual_information"].tolist() == [0]


def test_an_unknown_map_is_refused_with_the_known_ones():
    assert OutputOptions(maps=["entropy", "variance"]).maps == ["entropy", "variance"]
    with pytest.raises(ValueError, match=r"entropy, mutual_information.*found sharpness"):
        OutputOptions(maps=["entropy", "sharpness"])


def test_every_map_that_can_be_chosen_can_be_drawn():
    assert set(MAP_NAMES) == {*MAPS, "tta_variance", "memory"} == set(MAP_FACTS)


# --- the row ---

SEGMENTATION = np.array([[[1, 1, 2], [0, 0, 2]]], dtype=np.uint8)
ENTROPY = np.array([[[0.5, 0.1, 0.3], [0.2, 0.0, 0.7]]], dtype=np.float32)
INFORMATION = ENTROPY / 2
OTHER = np.array([[[1, 0, 2], [2, 2, 2]]], dtype=np.uint8)


def row_of(segmentation: np.ndarray, *members: np.ndarray) -> dict[str, object]:
    return case_row(
        segmentation,
        {"entropy": ENTROPY, "mutual_information": INFORMATION},
        [crop_to_foreground(member) for member in members],
        {"left": (1,), "right": (2,), "both": (1, 2)},
        ImageSize(voxels=9, voxel_volume_ml=0.01),
    )


def test_row_of_a_case():
    """The box has 6 of the image's 9 voxels; entropy is 0 in the other 3.

    Members, label by label: left 2 and 1 voxels, 1 shared: Dice 2/3. Right 2 and 4, 2 shared: 4/6. Both 4 and 5,
    3 shared: 6/9 (the first row's ends and the last voxel). Their mean is 2/3.
    """
    row = row_of(SEGMENTATION, SEGMENTATION, OTHER)
    assert row == {
        "members": 2,
        "mean_entropy": pytest.approx((0.5 + 0.1 + 0.3 + 0.2 + 0.0 + 0.7) / 9),
        "foreground_entropy": pytest.approx((0.5 + 0.1 + 0.3 + 0.7) / 4),
        "mutual_information": pytest.approx((0.5 + 0.1 + 0.3 + 0.2 + 0.0 + 0.7) / 2 / 9),
        "pairwise_dice": pytest.approx(2 / 3),
        "volume_ml_left": pytest.approx(0.02),
        "volume_ml_right": pytest.approx(0.02),
        "volume_ml_both": pytest.approx(0.04),
        "volume_cv_left": pytest.approx(0.5 / 1.5),  # 2 and 1: mean 1.5, standard deviation 0.5
        "volume_cv_right": pytest.approx(1 / 3),  # 2 and 4
        "volume_cv_both": pytest.approx(0.5 / 4.5),  # 4 and 5
        "flags": [],
    }


def test_the_columns_of_a_row_are_those_that_the_reference_describes():
    described = [column.name for column in COLUMNS if not column.only_with and column.name != "case"]
    found = row_of(SEGMENTATION, SEGMENTATION, OTHER)
    one_label = [name.replace("_left", f"_{ANY_LABEL}") for name in found if not name.endswith(("_right", "_both"))]
    assert one_label == described


def test_foreground_entropy_of_an_empty_segmentation_is_that_of_the_whole_image():
    row = row_of(np.zeros_like(SEGMENTATION), SEGMENTATION, np.zeros_like(SEGMENTATION))
    assert row["foreground_entropy"] == row["mean_entropy"] == pytest.approx(1.8 / 9)
    assert row["volume_ml_left"] == 0
    assert row["flags"] == ["empty_segmentation"]


def test_members_that_are_all_empty_are_flagged_because_their_dice_is_1():
    empty = np.zeros_like(SEGMENTATION)
    row = row_of(empty, empty, empty)
    assert row["pairwise_dice"] == 1
    assert row["flags"] == ["empty_segmentation", "all_members_empty"]
    assert math.isnan(row["volume_cv_left"])


def test_a_single_member_has_no_agreement_and_no_spread():
    row = row_of(SEGMENTATION, SEGMENTATION)
    assert row["members"] == 1
    assert math.isnan(row["pairwise_dice"])
    assert math.isnan(row["mutual_information"])  # 0 would read as certain
    assert math.isnan(row["volume_cv_left"])
    assert row["flags"] == []


def test_coefficient_of_variation():
    """2, 4, 4, 4, 5, 5, 7, 9 have the mean 5 and the standard deviation 2 of the population."""
    assert coefficient_of_variation(np.array([2, 4, 4, 4, 5, 5, 7, 9])) == pytest.approx(0.4)
    assert math.isnan(coefficient_of_variation(np.array([3])))
    assert math.isnan(coefficient_of_variation(np.array([0, 0])))
