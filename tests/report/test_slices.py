from __future__ import annotations

import numpy as np

from nnunet_ext.report.slices import picture_box, shown_slices


def stack(sums: list[float]) -> np.ndarray:
    """One voxel a slice."""
    return np.array(sums)[:, None, None]


def test_the_most_uncertain_slices_and_the_ends_are_shown():
    labels = stack([0, 1, 1, 1, 1, 1, 1, 0])
    uncertainty = stack([0, 0.1, 0.2, 0.9, 0.3, 0.8, 0.1, 0])
    assert shown_slices(labels, uncertainty) == {
        1: ["first with foreground"],
        3: ["most uncertain"],
        5: ["second most uncertain"],
        6: ["last with foreground"],
    }


def test_a_slice_that_is_both_has_both_reasons_and_the_next_fills_the_row():
    labels = stack([0, 1, 1, 1, 1])
    uncertainty = stack([0, 0.9, 0.2, 0.3, 0.8])
    assert shown_slices(labels, uncertainty) == {
        1: ["most uncertain", "first with foreground"],
        2: ["fourth most uncertain"],
        3: ["third most uncertain"],
        4: ["second most uncertain", "last with foreground"],
    }


def test_an_image_of_one_slice_shows_that_slice():
    assert list(shown_slices(stack([1]), stack([0.5]))) == [0]
    assert list(shown_slices(stack([1]), None)) == [0]


def test_without_a_map_the_largest_slice_and_the_ends_are_shown():
    labels = np.zeros((4, 1, 3))
    labels[1, 0, :1] = labels[2, 0, :3] = labels[3, 0, :2] = 1
    assert shown_slices(labels, None) == {
        1: ["first with foreground"],
        2: ["largest area"],
        3: ["last with foreground"],
    }


def test_without_foreground_and_uncertainty_the_middle_is_shown():
    assert shown_slices(stack([0, 0, 0]), stack([0, 0, 0])) == {1: ["middle"]}
    assert shown_slices(stack([0, 0, 0]), None) == {1: ["middle"]}


def test_the_crop_is_square_in_mm_around_what_is_marked():
    mask = np.zeros((1, 200, 200), dtype=bool)
    mask[0, 80:120, 90:110] = True  # 40 mm high; 20 voxels of 2 mm are 40 mm wide
    # 40 mm and a fifth on both sides are 56 mm: 56 voxels along y, 28 along x, around (100, 100)
    assert picture_box([mask], (200, 200), (1.0, 2.0)) == (slice(72, 128), slice(86, 114))


def test_a_crop_at_the_border_is_moved_into_the_image():
    mask = np.zeros((1, 100, 100), dtype=bool)
    mask[0, 0:50, 50:100] = True  # 50 and two fifths are 70
    assert picture_box([mask], (100, 100), (1.0, 1.0)) == (slice(0, 70), slice(30, 100))


def test_a_small_structure_keeps_its_surroundings():
    mask = np.zeros((1, 100, 100), dtype=bool)
    mask[0, 50, 50] = True
    assert picture_box([mask], (100, 100), (1.0, 1.0)) == (slice(38, 62), slice(38, 62))  # 24 mm


def test_an_image_smaller_than_the_crop_is_shown_whole():
    assert picture_box([np.ones((1, 6, 9), dtype=bool)], (6, 9), (1.0, 1.0)) == (slice(0, 6), slice(0, 9))


def test_nothing_marked_shows_the_whole_image():
    assert picture_box([np.zeros((2, 6, 9), dtype=bool)], (6, 9), (1.0, 1.0)) == (slice(0, 6), slice(0, 9))
