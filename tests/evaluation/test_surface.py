"""Hausdorff distances and surface Dice that are drawn by hand, a definition by brute force, and MONAI's own."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from nnunet_ext.evaluation.surface import (
    hausdorff_distances_mm,
    hausdorff_mm,
    normalised_surface_dice,
    surface_elements,
)


def mask(shape, *voxels):
    result = np.zeros(shape, dtype=bool)
    for voxel in voxels:
        result[voxel] = True
    return result


def box(shape, *slices):
    return mask(shape, slices)


def brute_force(prediction, truth, spacing_mm, percentile):
    """Surface voxels by looking at each neighbour, all distances between them, the larger of both directions."""

    def surface(values):
        padded = np.pad(values, 1)
        points = []
        for point in np.argwhere(values):
            neighbours = [
                tuple(point + 1 + sign * np.eye(values.ndim, dtype=int)[axis])
                for axis, sign in itertools.product(range(values.ndim), (-1, 1))
            ]
            if not all(padded[neighbour] for neighbour in neighbours):
                points.append(point * np.asarray(spacing_mm))
        return np.array(points)

    distances = cdist(surface(prediction), surface(truth))
    return max(np.percentile(distances.min(axis=axis), percentile) for axis in (0, 1))


# --- by hand ---


@pytest.mark.parametrize("percentile", [None, 50, 95, 100])
def test_two_voxels_have_the_distance_of_their_centres(percentile):
    """(3, 4) voxels of 1 mm: 5 mm."""
    first, second = mask((10, 10), (1, 2)), mask((10, 10), (4, 6))
    assert hausdorff_mm(first, second, (1, 1), percentile=percentile) == 5


def test_each_axis_has_its_own_spacing():
    """1 voxel of 12 mm, 2 of 1.5 mm and 1 of 4 mm: √(144 + 9 + 16) = 13 mm."""
    first, second = mask((4, 5, 6), (0, 0, 0)), mask((4, 5, 6), (1, 2, 1))
    assert hausdorff_mm(first, second, (12, 1.5, 4)) == 13


def test_equal_masks_have_no_distance():
    both = box((6, 6, 6), slice(1, 4), slice(0, 6), slice(2, 3))
    assert hausdorff_mm(both, both, (1, 1, 1)) == 0


@pytest.mark.parametrize("percentile", [None, 95])
def test_a_shifted_box_has_the_distance_of_the_shift(percentile):
    """A box of 4 × 4 × 4, 3 voxels of 2 mm further along the last axis: its far face is 6 mm from the nearest one.

    16 of its 56 surface voxels lie on that face, more than a twentieth, so that the 95th percentile sees them.
    """
    first = box((10, 10, 12), slice(3, 7), slice(3, 7), slice(1, 5))
    second = box((10, 10, 12), slice(3, 7), slice(3, 7), slice(4, 8))
    assert hausdorff_mm(first, second, (1, 1, 2), percentile=percentile) == 6


def test_the_interior_of_a_mask_is_not_its_surface():
    """A 5 × 5 square against its centre: the nearest surface is 2 away, the corners √8. A full one would give 0."""
    square, centre = box((7, 7), slice(1, 6), slice(1, 6)), mask((7, 7), (3, 3))
    assert hausdorff_mm(centre, square, (1, 1), percentile=None) == pytest.approx(8**0.5)
    # from the centre to the square 2, from its 16 surface pixels: 4 × 2, 8 × √5, 4 × √8; the median is √5
    assert hausdorff_mm(centre, square, (1, 1), percentile=50) == pytest.approx(5**0.5)


def test_the_percentile_is_that_of_each_direction_and_interpolated():
    """The prediction is the truth and a voxel 10 mm away.

    From the truth all 11 distances are 0. From the prediction there are twelve, 0 but for one 10. The 95th percentile
    is at 0.95 · 11 = 10.45, between the eleventh (0) and the twelfth (10): 4.5. Pooled, 23 distances, it would be 0.
    """
    line = [(0, index) for index in range(11)]
    truth = mask((1, 30), *line)
    prediction = mask((1, 30), *line, (0, 20))
    assert hausdorff_mm(prediction, truth, (1, 1)) == pytest.approx(4.5)
    assert hausdorff_mm(truth, prediction, (1, 1)) == pytest.approx(4.5)
    assert hausdorff_mm(prediction, truth, (1, 1), percentile=None) == 10


def test_a_mask_that_fills_the_image_has_its_surface_at_the_border():
    """5 × 5 pixels, all of them; its corner is √8 from the centre pixel."""
    assert hausdorff_mm(np.ones((5, 5), dtype=bool), mask((5, 5), (2, 2)), (1, 1), percentile=None) == (
        pytest.approx(8**0.5)
    )


# --- empty masks ---


@pytest.mark.parametrize("percentile", [None, 95])
def test_a_missed_structure_costs_the_diagonal_of_the_image(percentile):
    """(3 · 4, 4 · 1, 6 · 0.5) mm: √(144 + 16 + 9) = 13."""
    empty, full = mask((3, 4, 6)), mask((3, 4, 6), (1, 1, 1))
    assert hausdorff_mm(empty, full, (4, 1, 0.5), percentile=percentile) == 13
    assert hausdorff_mm(full, empty, (4, 1, 0.5), percentile=percentile) == 13


def test_the_diagonal_is_longer_than_any_distance():
    first, second = mask((3, 4), (0, 0)), mask((3, 4), (2, 3))
    assert hausdorff_mm(first, second, (1, 1)) < hausdorff_mm(first, mask((3, 4)), (1, 1)) == 5


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5)])
def test_two_empty_masks_agree(shape):
    assert hausdorff_mm(mask(shape), mask(shape), (1,) * len(shape)) == 0


# --- against the definition ---


@pytest.mark.parametrize("shape", [(9, 11), (5, 9, 8), (1, 9, 8), (6, 1)])
@pytest.mark.parametrize("percentile", [None, 30, 95, 100])
def test_random_masks_against_brute_force(shape, percentile):
    generator = np.random.default_rng(0)
    spacing_mm = (3.0, 0.7, 1.2)[: len(shape)]
    for density in (0.05, 0.5, 0.9):
        first, second = (generator.random(shape) < density for _ in range(2))
        first.flat[0] = second.flat[-1] = True  # neither is empty
        expected = brute_force(first, second, spacing_mm, 100 if percentile is None else percentile)
        assert hausdorff_mm(first, second, spacing_mm, percentile=percentile) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("corner", list(itertools.product((0, 20), repeat=3)))
def test_where_the_masks_lie_in_a_large_image_does_not_matter(corner):
    """The same masks at each corner, touching the border, and in the middle of an image."""
    generator = np.random.default_rng(1)
    first, second = (generator.random((4, 4, 4)) < 0.6 for _ in range(2))

    def placed(values, start):
        image = np.zeros((24, 24, 24), dtype=bool)
        image[tuple(slice(s, s + 4) for s in start)] = values
        return image

    middle = hausdorff_mm(placed(first, (9, 9, 9)), placed(second, (9, 9, 9)), (2, 1, 1))
    assert hausdorff_mm(placed(first, corner), placed(second, corner), (2, 1, 1)) == middle > 0


def test_masks_may_be_views_and_are_not_changed():
    first = np.random.default_rng(0).random((8, 9, 10)) < 0.4
    second = first[::-1, :, ::-1].T.T
    before = first.copy()
    there = hausdorff_mm(first, second, (1, 1, 1))
    assert hausdorff_mm(first, np.ascontiguousarray(second), (1, 1, 1)) == there
    assert np.array_equal(first, before)


# --- several percentiles at once ---


@pytest.mark.parametrize("shape", [(9, 11), (5, 9, 8)])
def test_several_percentiles_are_those_that_monai_gives_one_by_one(shape):
    import torch
    from monai.metrics import compute_hausdorff_distance

    generator = np.random.default_rng(2)
    spacing_mm = (3.0, 0.7, 1.2)[: len(shape)]
    first, second = (generator.random(shape) < 0.3 for _ in range(2))
    expected = [
        float(
            compute_hausdorff_distance(
                *(torch.from_numpy(values)[None, None] for values in (first, second)),
                include_background=True,
                percentile=percentile,
                spacing=spacing_mm,
            )
        )
        for percentile in (None, 95, 50)
    ]
    found = hausdorff_distances_mm(first, second, spacing_mm, percentiles=(None, 95, 50))
    assert found == pytest.approx(tuple(expected), rel=1e-6)


def test_hd_and_hd95_are_the_default():
    """The prediction is a line of 11 and a pixel 10 further, as above: HD 10, HD95 4.5."""
    line = [(0, index) for index in range(11)]
    found = hausdorff_distances_mm(mask((1, 30), *line, (0, 20)), mask((1, 30), *line), (1, 1))
    assert found == pytest.approx((10, 4.5), rel=1e-6)


def test_empty_masks_have_the_same_distance_at_every_percentile():
    """(3 · 1, 4 · 1): 5 mm."""
    empty, full = mask((3, 4)), mask((3, 4), (1, 1))
    assert hausdorff_distances_mm(empty, full, (1, 1)) == (5, 5)
    assert hausdorff_distances_mm(empty, empty, (1, 1)) == (0, 0)


# --- surface Dice, by hand ---


def test_a_shifted_square_agrees_with_half_of_its_contour():
    """4 × 4 pixels of 1 mm, one pixel further. Each contour has 12 elements of 1 mm and 4 bevelled corners of √½.

    Of either square's upper side lie three elements of 1 mm and one corner on the other square's upper side, of its
    lower side as many, and of the sides across nothing: 2 · (3 + √½) of 12 + 4 · √½, one half.
    """
    truth, prediction = box((8, 8), slice(2, 6), slice(2, 6)), box((8, 8), slice(2, 6), slice(3, 7))
    assert normalised_surface_dice(prediction, truth, (1, 1), tolerance_mm=0) == pytest.approx(0.5)
    assert normalised_surface_dice(prediction, truth, (1, 1), tolerance_mm=0.99) == pytest.approx(0.5)
    assert normalised_surface_dice(prediction, truth, (1, 1), tolerance_mm=1) == 1


def test_a_spurious_voxel_costs_its_own_surface():
    """Two voxels and one of them: two surfaces of three agree, whatever the spacing."""
    truth = mask((5, 5, 40), (2, 2, 2))
    prediction = truth | mask((5, 5, 40), (2, 2, 36))
    for first, second in ((prediction, truth), (truth, prediction)):
        assert normalised_surface_dice(first, second, (4, 1, 0.5), tolerance_mm=5) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("tolerance_mm", "expected"), [(2.09, 0), (2.1, 1)])
def test_a_distance_at_the_tolerance_agrees(tolerance_mm, expected):
    """Two pixels, three further of 0.7 mm each: 3 · 0.7 is 2.0999999999999996 or 2.1, and both are within 2.1 mm."""
    first, second = mask((3, 9), (1, 1)), mask((3, 9), (1, 4))
    # the right half of the first contour is 2 pixels from the left half of the second, so in mm: 1.4 and 2.1
    found = normalised_surface_dice(first, second, (0.7, 0.7), tolerance_mm=tolerance_mm)
    assert found == pytest.approx((1 + expected) / 2)


def test_the_surface_of_a_voxel_is_an_octahedron():
    """Its corners are halfway to the neighbours. Eight faces of √(a²b² + b²c² + c²a²)/8."""
    _, sizes = surface_elements(mask((3, 3, 3), (1, 1, 1)), (2, 3, 6))
    assert len(sizes) == 8
    assert sizes.sum() == pytest.approx((36 + 324 + 144) ** 0.5)


def test_the_surface_of_a_box_has_bevelled_edges():
    """3 × 3 × 3 voxels: 6 faces of 2 × 2, 12 edges of 2 · √½, and the 8 corners make an octahedron's √3."""
    _, sizes = surface_elements(np.ones((3, 3, 3), dtype=bool), (1, 1, 1))
    assert sizes.sum() == pytest.approx(24 + 24 * 0.5**0.5 + 3**0.5)


def test_a_side_has_the_length_of_its_own_axis():
    """2 × 3 pixels of 5 × 1 mm: two sides of 1 · 5 mm, two of 2 · 1 mm, and 4 corners of √26/2."""
    _, sizes = surface_elements(np.ones((2, 3), dtype=bool), (5, 1))
    assert sizes.sum() == pytest.approx(2 * 5 + 2 * 2 + 4 * 26**0.5 / 2)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5)])
def test_surface_dice_of_empty_masks(shape):
    empty, full = mask(shape), np.ones(shape, dtype=bool)
    spacing_mm = (1,) * len(shape)
    assert normalised_surface_dice(empty, empty, spacing_mm, tolerance_mm=1) == 1
    assert normalised_surface_dice(full, empty, spacing_mm, tolerance_mm=100) == 0
    assert normalised_surface_dice(empty, full, spacing_mm, tolerance_mm=100) == 0
    assert len(surface_elements(empty, spacing_mm)[0]) == 0


# --- surface Dice, against MONAI ---


@pytest.mark.parametrize("shape", [(9, 11), (5, 9, 8), (1, 9, 8), (6, 1)])
@pytest.mark.parametrize("tolerance_mm", [0, 0.7, 1.4, 2.1, 3])
def test_surface_dice_is_monais_with_subvoxels(shape, tolerance_mm):
    """Random masks that touch the border."""
    import torch
    from monai.metrics import compute_surface_dice

    generator = np.random.default_rng(0)
    spacing_mm = (3.0, 0.7, 1.2)[: len(shape)]
    for density in (0.05, 0.5, 0.95):
        first, second = (generator.random(shape) < density for _ in range(2))
        first.flat[0] = second.flat[-1] = True  # neither is empty
        expected = compute_surface_dice(
            *(torch.from_numpy(values)[None, None] for values in (first, second)),
            [tolerance_mm],
            include_background=True,
            spacing=spacing_mm,
            use_subvoxels=True,
        )
        found = normalised_surface_dice(first, second, spacing_mm, tolerance_mm=tolerance_mm)
        assert found == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("corner", list(itertools.product((0, 20), repeat=3)))
def test_surface_dice_does_not_depend_on_where_the_masks_lie(corner):
    generator = np.random.default_rng(1)
    first, second = (generator.random((4, 4, 4)) < 0.6 for _ in range(2))

    def placed(values, start):
        image = np.zeros((24, 24, 24), dtype=bool)
        image[tuple(slice(s, s + 4) for s in start)] = values
        return image

    middle = normalised_surface_dice(placed(first, (9, 9, 9)), placed(second, (9, 9, 9)), (2, 1, 1), tolerance_mm=0)
    found = normalised_surface_dice(placed(first, corner), placed(second, corner), (2, 1, 1), tolerance_mm=0)
    assert found == pytest.approx(middle)
    assert 0 < middle < 1


# --- refusals ---

VOXEL = mask((3, 3), (1, 1))


def test_a_label_map_is_refused():
    with pytest.raises(TypeError, match=r"must be boolean; found int64 and bool.*prediction == label"):
        hausdorff_mm(VOXEL.astype(np.int64), VOXEL, (1, 1))


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"found \(3, 3\) and \(1, 3\)"):
        hausdorff_mm(VOXEL, VOXEL[1:2], (1, 1))


@pytest.mark.parametrize("shape", [(3,), (1, 3, 3, 3)])
def test_other_dimensions_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(H, W\) or \(D, H, W\)"):
        hausdorff_mm(np.ones(shape, dtype=bool), np.ones(shape, dtype=bool), (1,) * len(shape))


@pytest.mark.parametrize("spacing_mm", [(1,), (1, 1, 1), (0, 1), (-1, 1), (float("nan"), 1), (float("inf"), 1)])
def test_a_spacing_that_is_none_is_refused(spacing_mm):
    with pytest.raises(ValueError, match="positive number of mm for each of the 2 axes"):
        hausdorff_mm(VOXEL, VOXEL, spacing_mm)


@pytest.mark.parametrize("percentile", [0, -5, 101, float("nan")])
def test_a_percentile_outside_its_range_is_refused(percentile):
    """MONAI reads 0 as the maximum."""
    with pytest.raises(ValueError, match="above 0 and at most 100"):
        hausdorff_mm(VOXEL, VOXEL, (1, 1), percentile=percentile)


@pytest.mark.parametrize("tolerance_mm", [-1, float("nan"), float("inf")])
def test_a_tolerance_that_is_none_is_refused(tolerance_mm):
    with pytest.raises(ValueError, match=f"number of mm, at least 0; found {tolerance_mm}"):
        normalised_surface_dice(VOXEL, VOXEL, (1, 1), tolerance_mm=tolerance_mm)


def test_surface_dice_refuses_what_the_distance_refuses():
    with pytest.raises(TypeError, match="must be boolean"):
        normalised_surface_dice(VOXEL.astype(np.uint8), VOXEL, (1, 1), tolerance_mm=1)
    with pytest.raises(ValueError, match="positive number of mm for each of the 2 axes"):
        normalised_surface_dice(VOXEL, VOXEL, (1, 1, 1), tolerance_mm=1)


def test_monai_is_not_imported_before_it_is_needed():
    code = "import sys; import nnunet_ext.evaluation.surface; sys.exit('monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
