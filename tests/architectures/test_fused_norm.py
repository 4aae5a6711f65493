"""Fused instance norms: the values of torch's own, in single precision whatever comes in."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_ext.architectures.channels_last import ChannelsLastInstanceNorm, with_channels_last
from nnunet_ext.architectures.fused_norm import FusedInstanceNorm, with_fused_norms


def test_a_channel_of_two_pixels_by_hand():
    """1 and 3 have the mean 2 and the deviation 1: they become -1 and 1, times 10, plus 5."""
    norm = nn.InstanceNorm2d(1, eps=0.0, affine=True)
    nn.init.constant_(norm.weight, 10.0)
    nn.init.constant_(norm.bias, 5.0)
    assert FusedInstanceNorm(norm)(torch.tensor([[[[1.0, 3.0]]]])).tolist() == [[[[-5.0, 15.0]]]]


def test_a_constant_channel_becomes_its_bias():
    norm = nn.InstanceNorm3d(2, affine=True)
    nn.init.constant_(norm.bias, 0.5)
    assert FusedInstanceNorm(norm)(torch.full((1, 2, 3, 3, 3), 7.0)).unique().tolist() == [0.5]


@pytest.mark.parametrize("shape", [(2, 5, 6, 7), (3, 4, 3, 6, 5)])
def test_the_numbers_are_those_of_torch_far_from_zero_too(shape):
    norm = {4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}[len(shape)](shape[1], affine=True)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    values = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 100
    found = FusedInstanceNorm(norm)(values)
    torch.testing.assert_close(found, norm.double()(values.double()).float(), rtol=0, atol=1e-4)


def test_half_precision_values_do_not_overflow():
    """300 squared is beyond half precision, whose largest number is 65504; mean 0, deviation 300."""
    values = torch.tensor([[[[-300.0, 300.0]]]], dtype=torch.float16)
    found = FusedInstanceNorm(nn.InstanceNorm2d(1, affine=True).half())(values)
    assert found.dtype == torch.float16
    assert found.tolist() == [[[[-1.0, 1.0]]]]


@pytest.mark.parametrize("before", [lambda network: network, with_channels_last], ids=["torch", "channels last"])
def test_affine_norms_are_replaced_once_and_keep_their_names_and_weights(before):
    norm = nn.InstanceNorm2d(2, affine=True)
    network = nn.Sequential(nn.Conv2d(1, 2, 1), norm, nn.Sequential(norm), nn.InstanceNorm2d(2))
    names, weight = list(network.state_dict()), norm.weight
    with_fused_norms(before(network))
    assert list(network.state_dict()) == names
    assert type(network[1]) is FusedInstanceNorm
    assert network[1] is network[2][0]
    assert network[1].weight is weight
    assert type(network[3]) is nn.InstanceNorm2d  # without weights
    assert not any(isinstance(module, ChannelsLastInstanceNorm) for module in network.modules())
