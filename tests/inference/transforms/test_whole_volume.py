"""Small rotations and scales: undone within the error of interpolation, and no vote where the network saw nothing."""

import math

import pytest
import torch

from nnunet_ext.inference.transforms.rot90 import Rot90
from nnunet_ext.inference.transforms.rotate import Rotation
from nnunet_ext.inference.transforms.scale import Scaling

CPU = torch.device("cpu")
TRANSFORMS = [Rotation(10), Rotation(-10), Rotation(10, spacing_mm=(2.0, 1.0)), Scaling(0.95), Scaling(1.05)]


def waves(*shape: int) -> torch.Tensor:
    """A smooth volume (1, *shape) in [-1, 1] with a period of 32 voxels along each axis."""
    axes = torch.meshgrid(*(torch.arange(side) * (2 * math.pi / 32) for side in shape), indexing="ij")
    return torch.stack([axis.sin() for axis in axes]).prod(0)[None]


def point_at(*where: int, shape: tuple[int, ...]) -> torch.Tensor:
    volume = torch.zeros(1, *shape)
    volume[(0, *where)] = 1
    return volume


def test_a_rotation_turns_as_the_exact_one_does():
    volume = torch.randn(3, 2, 7, 7)
    torch.testing.assert_close(Rotation(90).apply(volume), Rot90(1).apply(volume), atol=1e-5, rtol=0)
    torch.testing.assert_close(Rotation(-90).apply(volume), Rot90(3).apply(volume), atol=1e-5, rtol=0)


def test_angles_are_those_in_mm():
    """From the centre (4, 6), 2 voxels of 2 mm down are, a quarter turn on, 4 voxels of 1 mm to the right."""
    turned = Rotation(90, spacing_mm=(2.0, 1.0)).apply(point_at(6, 6, shape=(9, 13)))
    assert turned[0].flatten().argmax() == 4 * 13 + 10


def test_enlarging_moves_points_away_from_the_centre():
    assert Scaling(2).apply(point_at(5, 3, shape=(9, 9)))[0, 6, 2] == 1
    assert Scaling(0.5).apply(point_at(6, 2, shape=(9, 9)))[0, 5, 3] == 1


@pytest.mark.parametrize("plane", [(-2, -1), (-3, -1), (-3, -2)])
def test_only_the_plane_is_touched(plane):
    """Along the third axis every slice is the same as if it were alone."""
    volume = waves(12, 14, 16)
    (other,) = {-3, -2, -1} - set(plane)
    whole = Rotation(10, plane).apply(volume)
    slices = [Rotation(10).apply(part) for part in volume.unbind(other)]
    torch.testing.assert_close(whole, torch.stack(slices, dim=other))


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: transform.name)
def test_undoing_is_right_within_the_error_of_interpolation(transform):
    """Linear interpolation of sin along an axis errs by at most (2 pi / 32)² / 8 = 0.005; two axes, twice: 0.02."""
    volume = waves(3, 64, 80)
    back = transform.undo(transform.apply(volume), volume)
    view = transform.field_of_view(volume.shape[1:], CPU)
    inside = view > 0.2  # beyond, the continued border is read
    assert inside.float().mean() > 0.75
    assert ((back - volume)[0].abs() * inside).max() < 0.02
    assert not transform.exact


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: transform.name)
def test_a_volume_of_one_value_keeps_it_up_to_its_border(transform):
    """An edge of zeros in the corners would lower the values beside it."""
    volume = torch.full((2, 3, 20, 30), 5.0)
    back = transform.undo(transform.apply(volume), volume)
    torch.testing.assert_close(back, volume)


def test_the_field_of_view_by_hand():
    """Nine voxels, enlarged twice: 4 - 2|d| voxels to the border, by an eighth of nine: 1, 1, 0, below 0."""
    view = Scaling(2).field_of_view((3, 9, 9), CPU)
    row = [0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert view[1, 4].tolist() == view[1, :, 4].tolist() == row
    assert torch.equal(view[0], view[2])
    assert Scaling(1).field_of_view((3, 9, 9), CPU)[0, 4].tolist() == pytest.approx(
        [0, 8 / 9, 1, 1, 1, 1, 1, 8 / 9, 0]
    )


def test_corners_that_turn_out_of_the_volume_have_no_vote():
    view = Rotation(10).field_of_view((2, 40, 40), CPU)
    assert view[0, 0, 0] == view[1, -1, -1] == 0
    assert view[0, 20, 20] == 1
