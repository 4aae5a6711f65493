"""Wrong voxels of masks that are drawn by hand."""

import numpy as np
import pytest

from nnunet_ext.evaluation.error_parts import ErrorParts, error_parts


def drawn(*rows):
    """(H, W), set where a row has an x."""
    return np.array([[letter == "x" for letter in row] for row in rows])


def test_wrong_voxels_are_missed_made_up_or_at_the_boundary():
    """The left lesion is 1 too short and 2 too wide; the middle one of 3 is missed; the right one of 2 made up."""
    truth = drawn("xxx....xxx....", "xxx...........")
    prediction = drawn("xxxx........xx", "xx.x..........")
    parts = error_parts(prediction, truth)
    assert parts == ErrorParts(missed=3, spurious=2, boundary=3)
    assert parts.total == (prediction != truth).sum() == 8


def test_equal_masks_have_no_error():
    assert error_parts(drawn("x.x"), drawn("x.x")).total == 0


def test_neighbours_that_share_no_voxel_do_not_touch():
    assert error_parts(drawn("..xx"), drawn("xx..")) == ErrorParts(missed=2, spurious=2, boundary=0)


def test_one_voxel_in_common_makes_all_of_it_boundary():
    assert error_parts(drawn(".xxx"), drawn("xx..")) == ErrorParts(missed=0, spurious=0, boundary=3)


def test_corners_connect():
    """The far pixel of the truth hangs together with the one that is covered."""
    assert error_parts(drawn("x..", "..."), drawn("x..", ".x.")) == ErrorParts(missed=0, spurious=0, boundary=1)


def test_empty_masks():
    empty, full = drawn("...."), drawn("xx.x")
    assert error_parts(empty, empty) == ErrorParts(missed=0, spurious=0, boundary=0)
    assert error_parts(empty, full) == ErrorParts(missed=3, spurious=0, boundary=0)
    assert error_parts(full, empty) == ErrorParts(missed=0, spurious=3, boundary=0)


@pytest.mark.parametrize("shape", [(20, 20), (8, 9, 10)])
def test_the_parts_of_random_masks_add_up_and_swap_with_the_masks(shape):
    generator = np.random.default_rng(0)
    for density in (0.02, 0.1, 0.5):
        prediction, truth = (generator.random(shape) < density for _ in range(2))
        parts, swapped = error_parts(prediction, truth), error_parts(truth, prediction)
        assert parts.total == (prediction ^ truth).sum()
        assert min(parts.missed, parts.spurious, parts.boundary) >= 0
        assert (swapped.missed, swapped.spurious, swapped.boundary) == (parts.spurious, parts.missed, parts.boundary)


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        error_parts(drawn("x."), drawn("x.."))
