"""Agreement of members' segmentations, on masks small enough to count."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_ext.inference.accumulation.agreement import crop_to_foreground, overlaps, pairwise_dice


def drawn(*rows: str) -> np.ndarray:
    """A label map (1, y, x) from rows of digits; a dot is background."""
    return np.array([[[int(voxel.replace(".", "0")) for voxel in row] for row in rows]], dtype=np.uint8)


def dice_of(*maps: np.ndarray, regions: list[tuple[int, ...]]) -> float:
    return pairwise_dice(overlaps([crop_to_foreground(labels) for labels in maps], regions))


FIRST = drawn(
    ".....",
    ".11..",
    ".112.",
)
SECOND = drawn(
    "..1..",
    "..11.",
    "..22.",
)


def test_the_crop_is_the_box_of_the_foreground():
    cropped = crop_to_foreground(FIRST)
    assert cropped.start == (0, 1, 1)
    assert cropped.labels.tolist() == [[[1, 1, 0], [1, 1, 2]]]


def test_the_crop_does_not_keep_the_whole_label_map_alive():
    cropped = crop_to_foreground(FIRST)
    assert cropped.labels.base is None


def test_a_map_without_foreground_is_cropped_to_nothing():
    cropped = crop_to_foreground(np.zeros((3, 4, 5), np.uint8))
    assert cropped.labels.size == 0
    assert overlaps([cropped], [(1,), (1, 2)]).tolist() == [[[0]], [[0]]]


def test_dice_of_two_drawn_masks():
    """Label 1: 4 and 3 voxels, shared 1 (row 1, column 2): 2·1/7. Label 2: 1 and 2, shared 1: 2·1/3."""
    overlap = overlaps([crop_to_foreground(FIRST), crop_to_foreground(SECOND)], [(1,), (2,)])
    assert overlap.tolist() == [[[4, 1], [1, 3]], [[1, 1], [1, 2]]]
    assert pairwise_dice(overlap) == pytest.approx((2 / 7 + 2 / 3) / 2)


def test_nested_regions_are_counted_by_all_their_labels():
    """Region (1, 2): 5 and 5 voxels, shared 3 (row 1 column 2, row 2 columns 2 and 3). Region (2,): 2·1/3."""
    assert dice_of(FIRST, SECOND, regions=[(1, 2), (2,)]) == pytest.approx((2 * 3 / 10 + 2 / 3) / 2)


def test_a_member_agrees_with_itself():
    assert dice_of(FIRST, FIRST, FIRST, regions=[(1,), (2,)]) == 1


def test_masks_whose_boxes_do_not_touch_share_nothing():
    left, right = drawn("1....", "1...."), drawn("....1", "....1")
    assert dice_of(left, right, regions=[(1,)]) == 0


def test_dice_is_the_mean_over_all_pairs():
    """Two equal members and one that shares nothing: pairs 1, 0 and 0."""
    left, right = drawn("1...."), drawn("....1")
    assert dice_of(left, left, right, regions=[(1,)]) == pytest.approx(1 / 3)


def test_a_label_that_both_leave_out_does_not_count_and_one_that_one_leaves_out_is_zero():
    """Label 3 is nowhere; label 2 is in one of the two: 0; label 1 is the same: 1."""
    assert dice_of(drawn("112"), drawn("11."), regions=[(1,), (2,), (3,)]) == pytest.approx((1 + 0) / 2)


def test_empty_members_agree():
    empty = drawn("...")
    assert dice_of(empty, empty, regions=[(1,)]) == 1
    assert dice_of(empty, drawn("1.."), regions=[(1,)]) == 0


def test_against_a_plain_count_on_random_label_maps():
    rng = np.random.default_rng(0)
    maps = [rng.choice(4, size=(5, 6, 7), p=[0.85, 0.05, 0.05, 0.05]) for _ in range(4)]
    regions = [(1,), (2, 3), (3,)]
    dices = []
    for i in range(4):
        for j in range(i):
            in_i, in_j = ([np.isin(maps[k], region) for region in regions] for k in (i, j))
            dices.append(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in zip(in_i, in_j, strict=True)]))
    assert dice_of(*maps, regions=regions) == pytest.approx(np.mean(dices))


@pytest.mark.parametrize("members", [0, 1])
def test_fewer_than_two_members_have_no_agreement(members):
    assert math.isnan(dice_of(*[FIRST] * members, regions=[(1,)]))
