"""Crops for volume contrast: the grid, random places, and overlaps worked out by hand."""

import pytest
import torch

from nnunet_ext.pretext.crops import CropGrid, crop_grid, crops_at

GRID = CropGrid(counts=(2, 3), sides=(4, 4), margin=(0, 1))  # of a patch of 8 x 14 voxels


def overlaps(*start):
    return GRID.overlaps(torch.tensor([start]))[0].reshape(2, 3).tolist()


def test_base_crops_stand_side_by_side():
    assert GRID.base_starts().tolist() == [[0, 1], [0, 5], [0, 9], [4, 1], [4, 5], [4, 9]]


def test_a_crop_on_a_base_crop_lies_in_that_one_only():
    assert overlaps(4, 5) == [[0, 0, 0], [0, 1, 0]]


def test_a_crop_halfway_between_two_base_crops_lies_in_each_by_half():
    assert overlaps(0, 3) == [[0.5, 0.5, 0], [0, 0, 0]]


def test_a_crop_off_the_grid_along_both_axes_lies_in_four():
    assert overlaps(1, 6) == [[0, 9 / 16, 3 / 16], [0, 3 / 16, 1 / 16]]


def test_random_crops_are_within_the_grid_and_lie_in_base_crops_only():
    starts = GRID.random_starts(400, torch.Generator().manual_seed(0))
    assert (starts.amin(dim=0).tolist(), starts.amax(dim=0).tolist()) == ([0, 1], [4, 9])
    torch.testing.assert_close(GRID.overlaps(starts).sum(dim=1), torch.ones(400))


@pytest.mark.parametrize(
    ("patch", "strides", "most", "counts", "sides", "margin"),
    [
        ((64, 192, 192), (32, 32, 32), 3, (1, 3, 3), (64, 64, 64), (0, 0, 0)),  # the paper's
        ((64, 256, 256), (32, 32, 32), 4, (1, 4, 4), (64, 64, 64), (0, 0, 0)),  # the released code's
        ((160, 160, 160), (32, 32, 32), 3, (2, 2, 2), (64, 64, 64), (16, 16, 16)),
        ((20, 256, 256), (4, 64, 64), 3, (2, 2, 2), (8, 128, 128), (2, 0, 0)),
    ],
)
def test_the_grid_keeps_two_voxels_of_the_bottleneck(patch, strides, most, counts, sides, margin):
    assert crop_grid(patch, strides, most) == CropGrid(counts, sides, margin)


def test_a_patch_with_room_for_one_crop_is_refused():
    with pytest.raises(ValueError, match="room for one"):
        crop_grid((32, 32), (32, 32), 3)


def test_crops_are_the_voxels_from_their_start():
    image = torch.arange(2 * 4 * 5).reshape(2, 4, 5)
    crops = crops_at(image, torch.tensor([[0, 0], [2, 3]]), (2, 2))
    assert crops.shape == (2, 2, 2, 2)
    assert torch.equal(crops[1], image[:, 2:4, 3:5])
