"""Rotations by 90 degrees move voxels and nothing else."""

import pytest
import torch
from torch import nn

from nnunet_ext.inference.runtimes.batch_size import BatchSize
from nnunet_ext.inference.sliding_window import sliding_window_logits, tile_image
from nnunet_ext.inference.transforms.flip import IDENTITY, Flip
from nnunet_ext.inference.transforms.plane import PLANES
from nnunet_ext.inference.transforms.rot90 import Rot90


def test_a_quarter_turn_by_hand():
    volume = torch.tensor([[[1, 2], [3, 4]]])  # (channels, y, x)
    assert Rot90(1).apply(volume).tolist() == [[[2, 4], [1, 3]]]
    assert Rot90(2).apply(volume).tolist() == [[[4, 3], [2, 1]]]
    assert Rot90(3).apply(volume).tolist() == [[[3, 1], [4, 2]]]
    assert [Rot90(quarters).name for quarters in (1, 2, 3)] == ["rot90", "rot180", "rot270"]


@pytest.mark.parametrize(("plane", "shape"), [*zip(PLANES[3], [(3, 5, 5), (5, 3, 5), (5, 5, 3)], strict=True)])
def test_undoing_brings_logits_of_any_number_of_classes_back(plane, shape):
    volume, logits = torch.zeros(1, *shape), torch.randn(7, *shape)
    for quarters in (1, 2, 3):
        turn = Rot90(quarters, plane)
        assert torch.equal(turn.undo(turn.apply(logits), volume), logits)
        assert turn.exact
        assert turn.field_of_view(shape, volume.device) is None


EXACT = [Flip((0,)), Flip((1,)), Flip((0, 1)), Rot90(1), Rot90(2), Rot90(3)]


@pytest.mark.parametrize("transform", EXACT, ids=lambda transform: transform.name)
def test_an_equivariant_network_says_bit_by_bit_the_same(transform):
    """The largest value around a voxel is the same however the image is turned, and no sum is rounded."""
    network = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.ReLU())
    tiled = tile_image(torch.randn(2, 3, 13, 18, generator=torch.Generator().manual_seed(0)), (8, 8))
    plain, turned = (
        sliding_window_logits(network, tiled, [one], batch_size=BatchSize(4)) for one in (IDENTITY, transform)
    )
    assert torch.equal(turned, plain)
