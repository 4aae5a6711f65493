"""Boxes of slices and patches, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_ext.selection.units import inside, overlap, patch_boxes, slice_boxes, whole


def test_a_case_is_its_whole_image():
    assert whole((2, 3, 4)) == ((0, 2), (0, 3), (0, 4))


def test_slices_follow_the_axis_of_the_stack():
    assert slice_boxes((2, 3, 4), 0) == [((0, 1), (0, 3), (0, 4)), ((1, 2), (0, 3), (0, 4))]
    assert slice_boxes((1, 2, 3), 2)[-1] == ((0, 1), (0, 2), (2, 3))


def test_patches_overlap_by_half_and_the_last_one_ends_with_the_image():
    assert patch_boxes((1, 1, 9), (1, 1, 4)) == [((0, 1), (0, 1), (start, start + 4)) for start in (0, 2, 4, 5)]


def test_a_patch_larger_than_the_image_is_cut_off():
    assert patch_boxes((2, 3, 4), (8, 3, 2)) == [((0, 2), (0, 3), (start, start + 2)) for start in (0, 1, 2)]


@pytest.mark.parametrize("shape", [(5, 7, 11), (4, 4, 4)])
def test_patches_reach_every_voxel(shape):
    reached = np.zeros(shape, bool)
    for box in patch_boxes(shape, (3, 4, 5)):
        reached[inside(box)] = True
    assert reached.all()


def test_boxes_overlap_only_where_all_axes_do():
    assert overlap(((0, 2), (0, 2)), ((1, 3), (1, 3)))
    assert not overlap(((0, 2), (0, 2)), ((1, 3), (2, 4)))  # side by side
