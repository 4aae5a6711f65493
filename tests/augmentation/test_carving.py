"""What CarveMix cuts out of an image, on drawn lesions."""

import numpy as np
import pytest

from nnunet_ext.augmentation.carving import Overlaid, carving_of, drawn_threshold


class Draws:
    """A generator that gives the end of the interval that it is asked for: 0 the lower, 1 the upper one."""

    def __init__(self, *fractions):
        self.fractions = list(fractions)

    def uniform(self, low=0.0, high=1.0):
        return low + self.fractions.pop(0) * (high - low)


def cube(side, *, size=13):
    """A cube in the middle of a volume."""
    lesion = np.zeros((size,) * 3, dtype=bool)
    first = (size - side) // 2
    lesion[(slice(first, first + side),) * 3] = True
    return lesion


def carved(lesion, spacing_mm=(1, 1, 1), *fractions):
    """The whole volume's mask of what is carved."""
    carving = carving_of(lesion, spacing_mm, Draws(*fractions))
    result = np.zeros_like(lesion)
    result[carving.box] = carving.mask
    return result


def test_the_smallest_threshold_takes_the_core():
    """A cube of side 5 has D = 0, -1, -2 from the outside in; -m / 2 = -1 keeps the voxel with D = -2."""
    assert np.array_equal(carved(cube(5), (1, 1, 1), 0.0), cube(1))


def test_a_threshold_of_0_takes_the_lesion_without_its_outermost_voxels():
    assert np.array_equal(carved(cube(5), (1, 1, 1), 1 / 3), cube(3))  # a third of the way from -1 to 2


def test_the_largest_threshold_takes_what_is_nearer_than_the_lesion_is_thick():
    found = carved(cube(5), (1, 1, 1), 1.0)
    assert np.all(found[cube(5)])
    assert found[6, 6, 3]  # one voxel outside, D = 1 < 2
    assert not found[6, 6, 2]  # two voxels outside, D = 2
    assert not found[3, 3, 2]  # further along the diagonal


def test_thick_slices_take_fewer_voxels_along_their_axis():
    """With slices of 4 mm, the neighbour in the next slice is 4 steps away, more than the lesion is thick."""
    found = carved(cube(5), (4, 1, 1), 1.0)
    assert found[6, 6, 3]
    assert not found[3, 6, 6]


@pytest.mark.parametrize("lesion", [np.zeros((5, 5, 5), dtype=bool), np.ones((5, 5, 5), dtype=bool), cube(1)])
def test_without_lesions_or_with_too_thin_ones_nothing_is_carved(lesion):
    assert carving_of(lesion, (1, 1, 1), Draws(0.5)) is None


def test_the_paper_draws_cores_and_surroundings_equally_often():
    assert drawn_threshold(2.0, Draws(0.4, 0.0), "mixture") == -1
    assert drawn_threshold(2.0, Draws(0.6, 0.5), "mixture") == 1
    assert drawn_threshold(2.0, Draws(0.5), "uniform") == 0.5


def overlaid(begin):
    """Zeros of (1, 4, 4, 4) with a box (2, 2, 2) of 5 over them, but for one voxel of the box."""
    mask = np.ones((2, 2, 2), dtype=bool)
    mask[0, 0, 0] = False
    return Overlaid(np.zeros((1, 4, 4, 4)), np.full((1, 2, 2, 2), 5.0), mask, begin)


def test_a_part_of_an_array_with_another_over_it():
    array = overlaid((1, 1, 1))
    whole = array[(slice(None),) * 4]
    assert whole.sum() == 7 * 5
    assert whole[0, 1, 1, 1] == 0
    part = array[:, 2:3, 1:4, 0:2]
    assert np.array_equal(part, whole[:, 2:3, 1:4, 0:2])
    assert not array[:, 3:4, 0:4, 0:4].any()


def test_what_lies_over_an_array_may_reach_beyond_it():
    assert overlaid((-1, 0, 3))[(slice(None),) * 4].sum() == 2 * 5  # one plane and one column of the box are inside
