"""Stacks are blurred within their slices only, with the numbers that nnU-Net's own blur draws."""

from __future__ import annotations

import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import OneOfTransform, RandomTransform

from nnunet_ext.trainers.data.in_plane_blur import InPlaneBlur, with_in_plane_blur


def stack(slices: int) -> torch.Tensor:
    """(2, slices, 9, 9): a point in the middle of one slice."""
    image = torch.zeros(2, slices, 9, 9)
    image[:, slices // 2, 4, 4] = 1
    return image


def blurred(image: torch.Tensor, **settings) -> torch.Tensor:
    blur = InPlaneBlur(GaussianBlurTransform(**settings))
    return blur(image=image.clone())["image"]


@pytest.mark.parametrize("slices", [1, 2, 5])
def test_a_slice_is_blurred_and_its_neighbours_are_not(slices):
    found = blurred(stack(slices), blur_sigma=(0.8, 0.8), p_per_channel=1)
    own = found[:, slices // 2]
    assert own.sum().item() == pytest.approx(2, abs=1e-4)  # two channels
    assert (own[:, 4, 4] < 0.5).all() and (own[:, 4, 5] > 0.1).all() and (own[:, 5, 4] > 0.1).all()
    assert found.sum().item() == pytest.approx(own.sum().item())


def test_each_slice_is_what_nnunet_makes_of_it_in_2d():
    image = torch.rand(1, 3, 9, 9)
    settings = {"blur_sigma": (0.7, 0.7), "p_per_channel": 1}
    found = blurred(image, **settings)
    for index in range(3):
        expected = GaussianBlurTransform(**settings)(image=image[:, index].clone())["image"]
        torch.testing.assert_close(found[:, index], expected)


@pytest.mark.parametrize("synchronize", [False, True])
def test_channels_that_are_not_drawn_stay(synchronize):
    image = torch.rand(2, 4, 9, 9)
    torch.testing.assert_close(blurred(image, p_per_channel=0, synchronize_channels=synchronize), image)


def test_other_transforms_stay():
    blur, other = GaussianBlurTransform(), RandomTransform(GaussianBlurTransform(), 0.2)
    mirroring = MirrorTransform(allowed_axes=(1,))
    one_of = RandomTransform(OneOfTransform([GaussianBlurTransform(), mirroring]), 0.1)
    found = with_in_plane_blur(ComposeTransforms([blur, other, one_of])).transforms
    assert isinstance(found[0], InPlaneBlur)
    assert isinstance(found[1].transform, InPlaneBlur)
    assert found[1].apply_probability == 0.2
    drawn = found[2].transform.list_of_transforms  # as in DA5
    assert isinstance(drawn[0], InPlaneBlur) and drawn[1] is mirroring
