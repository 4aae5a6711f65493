"""Features of parts of an image, with a "network" that returns the image itself, so that means are known."""

from __future__ import annotations

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunet_ext.inference.bottleneck import around, bottleneck_of, in_preprocessed, pooled_features


def itself(image: torch.Tensor) -> torch.Tensor:
    return image


def volume(shape: tuple[int, ...]) -> torch.Tensor:
    """One channel, 0, 1, 2, ... along the first axis, repeated along the others."""
    values = torch.arange(shape[0], dtype=torch.float32)
    return values.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)[None]


def test_a_network_of_slices_sees_the_slices_of_the_part():
    """Slices 2 and 3."""
    found = pooled_features(itself, volume((6, 4, 4)), [(2, 4), (0, 4), (0, 4)], (4, 4))
    assert found == pytest.approx([2.5])


def test_more_slices_than_fit_into_a_batch_have_the_same_mean():
    assert pooled_features(itself, volume((11, 2, 2)), [(0, 11), (0, 2), (0, 2)], (2, 2)) == pytest.approx([5.0])


def test_a_part_smaller_than_a_patch_is_seen_with_what_is_around_it():
    """A 3D patch of four slices around slice 3 of six: 1 to 4."""
    found = pooled_features(itself, volume((6, 2, 2)), [(3, 4), (0, 2), (0, 2)], (4, 2, 2))
    assert found == pytest.approx([2.5])


def test_an_image_smaller_than_a_patch_is_padded_with_zeros():
    """0, 1 and 2, and one slice of zeros."""
    found = pooled_features(itself, volume((3, 2, 2)), [(0, 3), (0, 2), (0, 2)], (4, 2, 2))
    assert found == pytest.approx([0.75])


def test_a_widened_part_stays_inside_the_image():
    assert around([(0, 1), (9, 10), (2, 8)], [4, 4, 4], [10, 10, 10]) == [(0, 4), (6, 10), (2, 8)]


def test_a_box_is_found_again_after_transposition_cropping_and_resampling():
    """Axes z and x change places; of x 10 to 30 is kept and halved, of z 0 to 4 is kept, and doubled."""
    properties = {"bbox_used_for_cropping": [[10, 30], [0, 8], [0, 4]]}
    box = ((1, 2), (0, 8), (14, 20))  # z, y, x
    assert in_preprocessed(box, (10, 8, 8), properties, (2, 1, 0)) == [(2, 5), (0, 8), (2, 4)]


@pytest.mark.parametrize(("start", "expected"), [(0, (0, 1)), (39, (9, 10))])
def test_a_box_outside_of_the_crop_is_the_voxel_beside_it(start, expected):
    properties = {"bbox_used_for_cropping": [[10, 30]]}
    assert in_preprocessed([(start, start + 1)], (10,), properties, (0,)) == [expected]


def test_the_bottleneck_of_a_unet_is_the_last_of_its_encoder():
    network = PlainConvUNet(1, 3, [2, 3, 5], nn.Conv2d, 3, [1, 2, 2], 1, 2, 1).eval()
    image = torch.rand(2, 1, 8, 8)
    assert torch.equal(bottleneck_of(network)(image), network.encoder(image)[-1])
    assert bottleneck_of(network)(image).shape == (2, 5, 2, 2)


def test_a_network_without_a_known_bottleneck_is_refused():
    with pytest.raises(ValueError, match="found Conv2d"):
        bottleneck_of(nn.Conv2d(1, 2, 3))
