"""Errors of reconstructions, over counted voxels only."""

import pytest
import torch

from nnunet_ext.losses.reconstruction import explained_variance, reconstruction_error

IMAGES = torch.tensor([[[[0.0, 2.0, 4.0, 100.0]], [[0.0, 2.0, 4.0, 100.0]]]])  # two channels of a row
COUNTED = torch.tensor([[[[1.0, 1.0, 1.0, 0.0]]]])


def test_the_error_is_the_mean_over_counted_voxels_of_all_channels():
    outputs = IMAGES.clone()
    outputs[0, 0, 0, 1] += 3  # one of six
    outputs[..., 3] = -50  # does not count
    assert float(reconstruction_error(outputs, IMAGES, COUNTED)) == pytest.approx(9 / 6)


def test_half_precision_is_compared_in_float32():
    outputs = torch.full_like(IMAGES, 300, dtype=torch.float16)  # 300 squared is no half-precision number
    assert float(reconstruction_error(outputs, torch.zeros_like(IMAGES), COUNTED)) == pytest.approx(9e4)


def test_the_explained_variance_is_1_for_the_image_0_for_its_mean_and_below_for_worse():
    assert explained_variance(IMAGES, IMAGES, COUNTED) == 1
    assert explained_variance(torch.full_like(IMAGES, 2.0), IMAGES, COUNTED) == pytest.approx(0)
    fours = torch.full_like(IMAGES, 4.0)  # off by 4, 2 and 0; the mean is off by 2, 0 and 2
    assert explained_variance(fours, IMAGES, COUNTED) == pytest.approx(1 - (20 / 3) / (8 / 3))


def test_without_counted_voxels_the_error_is_0_with_a_gradient_of_0():
    outputs = torch.ones_like(IMAGES, requires_grad=True)
    loss = reconstruction_error(outputs, IMAGES, torch.zeros_like(COUNTED))
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(outputs.grad.abs().sum()) == 0
