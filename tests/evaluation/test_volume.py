"""Volumes of masks whose voxels can be counted."""

import math

import numpy as np
import pytest

from nnunet_ext.evaluation.volume import relative_volume_error, volume_error_ml


def mask_of(voxels, size=10):
    """(1, size), the first voxels set."""
    return np.arange(size)[None] < voxels


def test_the_error_is_positive_where_the_prediction_is_too_large():
    """6 and 4 voxels of 0.5 ml: 1 ml too much, half of the truth's 2 ml."""
    assert volume_error_ml(mask_of(6), mask_of(4), 0.5) == 1
    assert relative_volume_error(mask_of(6), mask_of(4)) == 0.5


def test_the_error_is_negative_where_the_prediction_is_too_small():
    """3 and 4 voxels of 2 ml."""
    assert volume_error_ml(mask_of(3), mask_of(4), 2) == -2
    assert relative_volume_error(mask_of(3), mask_of(4)) == -0.25


def test_where_the_masks_lie_does_not_matter():
    assert volume_error_ml(mask_of(4), mask_of(4)[:, ::-1], 1) == 0
    assert relative_volume_error(mask_of(4), mask_of(4)[:, ::-1]) == 0


def test_a_missed_structure_lacks_all_of_its_volume():
    assert volume_error_ml(mask_of(0), mask_of(4), 0.5) == -2
    assert relative_volume_error(mask_of(0), mask_of(4)) == -1


@pytest.mark.parametrize(("predicted", "error_ml"), [(0, 0), (4, 2)])
def test_an_empty_truth_has_no_share(predicted, error_ml):
    assert volume_error_ml(mask_of(predicted), mask_of(0), 0.5) == error_ml
    assert math.isnan(relative_volume_error(mask_of(predicted), mask_of(0)))


@pytest.mark.parametrize("voxel_ml", [0, -1, math.nan, math.inf])
def test_a_voxel_without_a_volume_is_refused(voxel_ml):
    with pytest.raises(ValueError, match="positive number of ml"):
        volume_error_ml(mask_of(1), mask_of(1), voxel_ml)


def test_labels_are_not_voxels():
    with pytest.raises(TypeError, match="prediction == label"):
        relative_volume_error(mask_of(1) * 2, mask_of(1))


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        volume_error_ml(mask_of(1, size=3), mask_of(1, size=4), 1)
