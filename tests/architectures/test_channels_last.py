"""Channels-last instance norm: the values of torch's own in another layout, with the same names of weights."""

from __future__ import annotations

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_ext.architectures.channels_last import LAYOUTS, ChannelsLastInstanceNorm, with_channels_last


def u_net(dimensions: int, kind: type[nn.Module] = PlainConvUNet) -> nn.Module:
    torch.manual_seed(0)
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    norm = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dimensions]
    depth = {"n_conv_per_stage" if kind is PlainConvUNet else "n_blocks_per_stage": 1}
    return kind(
        2, 3, (8, 16, 16), convolution, 3, (1, 2, 2), num_classes=3, n_conv_per_stage_decoder=1, conv_bias=True,
        norm_op=norm, norm_op_kwargs={"affine": True, "eps": 1e-5}, nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True}, **depth,
    ).eval()  # fmt: skip


def test_a_channel_of_two_pixels_by_hand():
    """1 and 3 have the mean 2 and the deviation 1: they become -1 and 1, times 10, plus 5."""
    norm = nn.InstanceNorm2d(1, eps=0.0, affine=True)
    nn.init.constant_(norm.weight, 10.0)
    nn.init.constant_(norm.bias, 5.0)
    with torch.inference_mode():
        values = ChannelsLastInstanceNorm(norm)(torch.tensor([[[[1.0, 3.0]]]]))
    assert values.tolist() == [[[[-5.0, 15.0]]]]


def test_a_constant_channel_becomes_its_bias():
    norm = nn.InstanceNorm3d(2, affine=True)
    nn.init.constant_(norm.bias, 0.5)
    with torch.inference_mode():
        assert ChannelsLastInstanceNorm(norm)(torch.full((1, 2, 3, 3, 3), 7.0)).unique().tolist() == [0.5]


@pytest.mark.parametrize("shape", [(2, 5, 6, 7), (3, 4, 3, 6, 5), (1, 1, 4, 4, 4)])
def test_the_numbers_are_those_of_torch_far_from_zero_too(shape):
    kind = {4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}[len(shape)]
    norm = kind(shape[1], affine=True)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    values = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 100
    before = values.clone()
    with torch.inference_mode():
        found = ChannelsLastInstanceNorm(norm)(values)
    torch.testing.assert_close(found, norm.double()(values.double()).float(), rtol=0, atol=5e-5)
    assert found.is_contiguous(memory_format=LAYOUTS[len(shape)])
    assert torch.equal(values, before)


def test_a_large_patch_is_normalised_to_rounding():
    """884,736 voxels: `torch.batch_norm` would be off by 5e-4 in this layout."""
    norm = nn.InstanceNorm3d(1, affine=True)
    values = torch.randn((1, 1, 96, 96, 96), generator=torch.Generator().manual_seed(0)) + 3
    with torch.inference_mode():
        found = ChannelsLastInstanceNorm(norm)(values)
    torch.testing.assert_close(found, norm.double()(values.double()).float(), rtol=0, atol=5e-6)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("kind", [PlainConvUNet, ResidualEncoderUNet])
def test_a_network_keeps_its_logits_and_the_names_of_its_weights(dimensions, kind):
    stock, changed = u_net(dimensions, kind), with_channels_last(u_net(dimensions, kind))
    changed.load_state_dict(stock.state_dict(), strict=True)
    image = torch.randn((2, 2) + (16,) * dimensions, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = stock(image), changed(image)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    if dimensions == 2:  # in 3D with one thread torch convolves in the plain layout
        assert found.is_contiguous(memory_format=torch.channels_last)  # kept to the end


def test_no_norm_of_torch_is_left_and_what_was_shared_still_is():
    network = with_channels_last(u_net(3))
    assert not any(isinstance(module, nn.InstanceNorm3d) for module in network.modules())
    block = network.encoder.stages[0][0].convs[0]
    assert block.norm is block.all_modules[1]


def test_other_norms_stay():
    """Running means, norms without weights, and other kinds."""
    others = nn.Sequential(
        nn.InstanceNorm3d(2, affine=True, track_running_stats=True), nn.InstanceNorm3d(2), nn.BatchNorm3d(2)
    )
    before = list(others)
    assert list(with_channels_last(others)) == before
