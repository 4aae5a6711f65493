"""Probabilities packed for the disk: what is kept, and what comes back."""

import numpy as np
import pytest

from nnunet_ext.teaching.packing import bytes_per_voxel, packed, unpacked


def of_one_voxel(*values):
    return np.array(values, np.float32)[:, None, None, None]


def values_of(array):
    return array[:, 0, 0, 0].tolist()


def test_few_classes_come_back_without_the_background():
    array = packed(of_one_voxel(0.625, 0.25, 0.125), top=4, regions=False)
    assert (array.dtype, array.shape) == (np.float16, (2, 1, 1, 1))
    assert values_of(unpacked(array, 3, regions=False)) == [0.25, 0.125]


def test_regions_come_back_whatever_their_number():
    regions = np.linspace(0, 1, 12, dtype=np.float32).reshape(12, 1, 1, 1)
    found = unpacked(packed(regions, top=2, regions=True), 12, regions=True)
    np.testing.assert_allclose(found, regions, atol=2**-12)


@pytest.mark.parametrize(
    ("voxel", "expected"),
    [
        ([0.4, 0.05, 0.3, 0.05, 0.05, 0.05, 0.1], [0, 0.375, 0, 0, 0, 0.125]),  # of 0.8; 0.5 is background
        ([0.0, 0.6, 0.0, 0.2, 0.0, 0.0, 0.2], [0.6, 0, 0.2, 0, 0, 0.2]),
    ],
)
def test_of_many_classes_the_top_three_are_divided_by_their_sum(voxel, expected):
    array = packed(of_one_voxel(*voxel, *[0] * 7), top=3, regions=False)
    assert (array.dtype, array.shape) == (np.uint16, (6, 1, 1, 1))
    assert values_of(unpacked(array, 14, regions=False)) == pytest.approx([*expected, *[0] * 7], abs=1e-3)


def test_a_part_of_the_packed_array_is_a_part_of_the_probabilities():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(12, 0.3), size=(3, 4, 5)).transpose(3, 0, 1, 2).astype(np.float32)
    array = packed(probabilities, top=4, regions=False)
    whole = unpacked(array, 12, regions=False)
    np.testing.assert_array_equal(unpacked(array[:, 1:, :2], 12, regions=False), whole[:, 1:, :2])
    kept = np.sort(probabilities, axis=0)[-4:].sum(axis=0)
    largest = probabilities.argmax(axis=0)
    foreground = largest > 0
    found = np.take_along_axis(whole, largest[None] - 1, axis=0)[0]
    np.testing.assert_allclose(found[foreground], (probabilities.max(axis=0) / kept)[foreground], atol=1e-3)


@pytest.mark.parametrize(
    ("outputs", "regions", "expected"),
    [(3, False, 4), (9, False, 16), (10, False, 16), (105, False, 16), (3, True, 6)],
)
def test_the_size_is_what_is_written(outputs, regions, expected):
    """Two bytes per probability; of the top four classes two more for the number of each."""
    assert bytes_per_voxel(outputs, 4, regions=regions) == expected
    array = packed(np.full((outputs, 2, 3, 4), 1 / outputs, np.float32), top=4, regions=regions)
    assert array.nbytes == expected * 24
