"""Over a whole volume a mixture gives what its network gives for the volume as one input, tiles or not."""

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_ext.architectures.streaming import FixedWeights, MemoryWeights, StreamingNetwork
from nnunet_ext.inference.sliding_window import sliding_window_logits, tile_image
from nnunet_ext.inference.volume_memory import mixture_logits, network_logits

CPU = torch.device("cpu")
IDENTITY = [()]


def mixture(conv_op, *, classifiers=2, regions=False, rule=None, mixture="log"):
    """Classifiers that see single voxels, so that the borders of tiles do not matter."""
    torch.manual_seed(3)
    members = [conv_op(1, 3, kernel_size=1) for _ in range(classifiers)]
    for member in members:
        nn.init.normal_(member.weight, std=3)
    network = StreamingNetwork(members, rule or MemoryWeights(kappa=10), mixture).eval()
    network.declare_regions(regions)
    return network


def volume(*shape, seed=0):
    return torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize(
    ("conv_op", "patch"),
    [
        (nn.Conv2d, (8, 8)),  # slice by slice: the network alone would remember one slice only
        (nn.Conv2d, (4, 4)),
        (nn.Conv3d, (6, 8, 8)),  # one tile
        (nn.Conv3d, (2, 4, 4)),  # a tile would remember two slices only
    ],
)
def test_the_memory_is_that_of_all_slices_whatever_the_tiles_are(conv_op, patch, regions):
    network, image = mixture(conv_op, regions=regions), volume(6, 8, 8)
    with torch.no_grad():
        whole = network(image[None])[0]
    found = mixture_logits(network, tile_image(image, patch), IDENTITY, device=CPU)
    torch.testing.assert_close(found, whole, atol=1e-4, rtol=1e-4)


def test_tile_by_tile_the_memory_would_be_another():
    # this is what stock nnU-Net's predictor gets
    network, image = mixture(nn.Conv2d), volume(6, 8, 8)
    tiled = tile_image(image, (8, 8))
    difference = mixture_logits(network, tiled, IDENTITY, device=CPU) - sliding_window_logits(
        network, tiled, IDENTITY, device=CPU
    )
    assert difference.abs().max() > 0.1


def test_fixed_weights_give_the_same_tile_by_tile_and_over_the_volume():
    network, tiled = mixture(nn.Conv2d, rule=FixedWeights([0.7, 0.3])), tile_image(volume(5, 8, 8), (8, 8))
    torch.testing.assert_close(
        mixture_logits(network, tiled, IDENTITY, device=CPU),
        sliding_window_logits(network, tiled, IDENTITY, device=CPU),
        atol=1e-4,
        rtol=1e-4,
    )


def test_padding_to_the_patch_does_not_enter_the_memory_and_blank_slices_of_the_image_do():
    # four slices of an image, two blank ones behind them, and a patch of ten slices that nnU-Net pads around
    image = torch.cat([volume(4, 8, 8), torch.zeros((1, 2, 8, 8))], dim=1)
    network = mixture(nn.Conv3d)
    alone = mixture_logits(network, tile_image(image, (6, 8, 8)), IDENTITY, device=CPU)
    padded = mixture_logits(network, tile_image(image, (10, 8, 8)), IDENTITY, device=CPU)
    assert padded.shape == (3, 6, 8, 8)
    torch.testing.assert_close(padded, alone, atol=1e-4, rtol=1e-4)
    without_blank = mixture_logits(network, tile_image(image[:, :4], (4, 8, 8)), IDENTITY, device=CPU)
    assert (padded[:, :4] - without_blank).abs().max() > 1e-3


def test_flips_are_averaged_as_logits_within_each_classifier():
    # an asymmetric classifier, mirrored: logits z(x) and z of the mirrored image mirrored back, by NumPy
    torch.manual_seed(0)
    member = nn.Conv2d(1, 2, kernel_size=3, padding=1)
    network = StreamingNetwork([member], MemoryWeights()).eval()
    image = volume(1, 8, 8)
    found = mixture_logits(network, tile_image(image, (8, 8)), [(), (1,)], device=CPU)
    with torch.no_grad():
        logits = (member(image[:, 0][None])[0] + member(image[:, 0][None].flip(3))[0].flip(2)).numpy() / 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
    np.testing.assert_allclose(found[:, 0].exp().numpy(), probabilities, atol=1e-5)


def test_the_papers_mixture_returns_probabilities():
    network = mixture(nn.Conv2d, mixture="paper")
    found = mixture_logits(network, tile_image(volume(3, 8, 8), (8, 8)), IDENTITY, device=CPU)
    torch.testing.assert_close(found.sum(dim=0), torch.ones(3, 8, 8))


def test_any_other_network_runs_as_ever():
    network, tiled = nn.Conv2d(1, 2, kernel_size=1), tile_image(volume(3, 8, 8), (4, 4))
    torch.testing.assert_close(
        network_logits(network, tiled, IDENTITY, device=CPU),
        sliding_window_logits(network, tiled, IDENTITY, device=CPU),
    )
