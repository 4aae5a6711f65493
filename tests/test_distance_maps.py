"""Distance maps by hand, and against the distance to every voxel on the other side."""

import math

import numpy as np
import pytest
from drawn_targets import mask

from nnunet_ext.boxes import bounding_box
from nnunet_ext.distance_maps import distance_to_boundary, relative, signed_distance


def to_other_side(inside, spacing):
    """For each voxel the distance to the nearest one that is not on its side, in units of the smallest spacing."""
    where = np.stack(np.indices(inside.shape), axis=-1) * (np.array(spacing) / min(spacing))
    pairs = np.linalg.norm(where.reshape(-1, 1, inside.ndim) - where.reshape(1, -1, inside.ndim), axis=-1)
    side = inside.ravel()
    return np.where(side[:, None] == side, np.inf, pairs).min(axis=1).reshape(inside.shape)


def random_masks():
    """Masks of two and three axes, sparse and dense, most of which touch the border, with spacings."""
    rng = np.random.default_rng(0)
    for shape, spacing in [((7, 9), (1, 1)), ((7, 9), (0.5, 2)), ((4, 5, 6), (1, 1, 1)), ((4, 5, 6), (5, 0.8, 1.1))]:
        for share in (0.02, 0.3, 0.9):
            inside = rng.random(shape) < share
            inside.flat[0], inside.flat[-1] = True, False
            yield inside, spacing


# --- signed ---


def test_the_outermost_voxels_of_a_mask_are_0_on_both_ends():
    """Outside 1, 2, ... to the mask; inside -(d - 1): the second voxel is 2 from what is outside, so it is -1."""
    assert signed_distance(mask("..111.."), (1,)).tolist() == [2, 1, 0, -1, 0, 1, 2]


def test_a_square_by_hand():
    two = math.sqrt(2)
    expected = [
        [two, 1, 1, 1, two],
        [1, 0, 0, 0, 1],
        [1, 0, -1, 0, 1],
        [1, 0, 0, 0, 1],
        [two, 1, 1, 1, two],
    ]
    square = mask(".....", ".111.", ".111.", ".111.", ".....")
    np.testing.assert_allclose(signed_distance(square, (1, 1)), expected, rtol=1e-6)


def test_thick_slices_lie_further_apart():
    """Spacing 3 mm between rows, 1.5 mm between columns: a step between rows is 2, between columns 1."""
    point = mask(".....", "..1..", ".....")
    row = [math.sqrt(8), math.sqrt(5), 2, math.sqrt(5), math.sqrt(8)]
    np.testing.assert_allclose(signed_distance(point, (3, 1.5)), [row, [2, 1, 0, 1, 2], row], rtol=1e-6)


def test_a_border_across_thick_slices_is_below_0_within_the_mask():
    """A layer between two others, rows 4 mm apart: what is outside is 4 away, so the layer is -(4 - 1)."""
    layer = mask("...", "111", "...")
    assert signed_distance(layer, (4, 1)).tolist() == [[4, 4, 4], [-3, -3, -3], [4, 4, 4]]


def test_only_the_ratio_of_spacings_counts():
    for inside, spacing in random_masks():
        doubled = [2 * length for length in spacing]
        assert np.array_equal(signed_distance(inside, spacing), signed_distance(inside, doubled))


def test_the_signed_distance_is_that_to_the_nearest_voxel_of_the_other_side():
    for inside, spacing in random_masks():
        distance = to_other_side(inside, spacing)
        expected = np.where(inside, -(distance - 1), distance)
        np.testing.assert_allclose(signed_distance(inside, spacing), expected, rtol=1e-5, atol=1e-6)


def test_a_mirrored_mask_has_the_mirrored_distance():
    for inside, spacing in random_masks():
        assert np.array_equal(signed_distance(np.flip(inside), spacing), np.flip(signed_distance(inside, spacing)))


# --- unsigned ---


def test_voxels_on_both_sides_of_a_boundary_are_1_away_from_it():
    assert distance_to_boundary(mask("..111.."), (1,)).tolist() == [2, 1, 1, 2, 1, 1, 2]


def test_the_distance_to_the_boundary_is_that_to_the_nearest_voxel_of_the_other_side():
    for inside, spacing in random_masks():
        found = distance_to_boundary(inside, spacing)
        np.testing.assert_allclose(found, to_other_side(inside, spacing), rtol=1e-5)


@pytest.mark.parametrize("of_mask", [signed_distance, distance_to_boundary])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (1, 3, 4)])
def test_without_a_boundary_there_is_no_distance(of_mask, shape):
    for inside in (np.zeros(shape, bool), np.ones(shape, bool)):
        found = of_mask(inside, (1.0,) * len(shape))
        assert found.dtype == np.float32
        assert not found.any()


@pytest.mark.parametrize("of_mask", [signed_distance, distance_to_boundary])
def test_a_single_slice_has_the_distances_of_the_picture(of_mask):
    inside = mask("..1..", ".111.", ".11..")
    assert np.array_equal(of_mask(inside[None], (3, 1, 1))[0], of_mask(inside, (1, 1)))


# --- parts ---


def test_spacings_are_divided_by_the_smallest():
    assert relative((3, 0.75, 1.5)) == (4, 1, 2)


def test_the_box_is_one_voxel_larger_but_not_than_the_patch():
    assert bounding_box(mask("......", "..11..", "......"), margin=1) == (slice(0, 3), slice(1, 5))
    assert bounding_box(mask("1.....", "......", "......"), margin=1) == (slice(0, 2), slice(0, 2))
