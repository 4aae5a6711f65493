"""Parameters and operations by hand."""

import torch
from torch import nn

from nnunet_ext.architectures.cost import NetworkCost, network_cost


def test_a_convolution_multiplies_and_adds_for_each_voxel_and_weight():
    # 8 x 6 voxels, 4 outputs, 2 inputs, 3 x 3 weights: 48 * 4 * 2 * 9 multiplications and as many additions
    assert network_cost(nn.Conv2d(2, 4, 3, padding=1), 2, (8, 6)) == NetworkCost(4 * (2 * 9 + 1), 2 * 48 * 4 * 2 * 9)


def test_strides_count_as_they_shorten_the_image():
    # 4 x 4 x 2 voxels are left, one output, one input, 2 x 2 x 2 weights
    cost = network_cost(nn.Conv3d(1, 1, 2, stride=2, bias=False), 1, (8, 8, 4))
    assert cost == NetworkCost(8, 2 * 32 * 8)


def test_two_networks_cost_the_sum_and_shared_weights_count_once():
    layer = nn.Conv2d(1, 1, 1, bias=False)
    assert network_cost(nn.Sequential(layer, layer), 1, (5, 5)) == NetworkCost(1, 2 * 2 * 25)


def test_dropout_and_norms_are_in_evaluation_mode():
    seen = []

    class Mode(nn.Module):
        def forward(self, image):
            seen.append((self.training, image.shape, image.device))
            return image

    network_cost(Mode(), 3, (7, 5))
    assert seen == [(False, (1, 3, 7, 5), torch.device("meta"))]
