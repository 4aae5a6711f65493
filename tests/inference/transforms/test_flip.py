"""Flips, the first of the test-time transforms."""

import torch

from nnunet_ext.inference.transforms.flip import IDENTITY, Flip, flips


def test_a_flip_mirrors_spatial_axes_and_no_channels():
    volume = torch.arange(8.0).reshape(2, 2, 2)  # (channels, y, x)
    assert Flip((1,)).apply(volume).tolist() == [[[1, 0], [3, 2]], [[5, 4], [7, 6]]]
    assert Flip((0, 1)).apply(volume).tolist() == [[[3, 2], [1, 0]], [[7, 6], [5, 4]]]


def test_undoing_brings_logits_of_any_number_of_classes_back():
    volume, logits = torch.zeros(1, 3, 4, 5), torch.randn(7, 3, 4, 5)
    for flip in flips((0, 1, 2)):
        assert torch.equal(flip.undo(flip.apply(logits), volume), logits)
        assert flip.exact


def test_the_identity_copies_nothing():
    volume = torch.zeros(1, 2, 2)
    assert IDENTITY.apply(volume) is volume
    assert IDENTITY.undo(volume, volume) is volume


def test_all_combinations_in_nnunets_order_with_the_identity_first():
    assert flips((0, 1)) == [IDENTITY, Flip((0,)), Flip((1,)), Flip((0, 1))]
    assert [flip.name for flip in flips((0, 2))] == ["flip-none", "flip-0", "flip-2", "flip-02"]
    assert flips(None) == flips((0, 1), enabled=False) == [IDENTITY]
