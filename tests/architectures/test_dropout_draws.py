"""One draw is one network: the same channels are dropped in every input, whatever its place, flip or batch."""

import pytest
import torch
from torch import nn

from nnunet_ext.architectures.dropout_draws import draw, drawn_layers, with_drawn_dropout


@pytest.fixture
def network():
    """50 channels, of which a draw drops about half; the last layer drops nothing."""
    return with_drawn_dropout(nn.Sequential(nn.BatchNorm2d(50), nn.Dropout2d(0.5), nn.Dropout(0.0))).eval()


def drawn(network, seed, image=None):
    draw(network, seed)
    with torch.no_grad():
        return network(torch.ones(1, 50, 4, 4) if image is None else image)


def test_layers_that_drop_nothing_stay_what_they_are(network):
    assert drawn_layers(network) == [network[1]]
    assert isinstance(network[2], nn.Dropout)


def test_names_and_numbers_of_the_weights_stay(network):
    plain = nn.Sequential(nn.BatchNorm2d(50), nn.Dropout2d(0.5), nn.Dropout(0.0))
    network.load_state_dict(plain.state_dict(), strict=True)


def test_a_layer_that_stands_twice_in_a_network_is_one_layer():
    dropout = nn.Dropout2d(0.5)
    block = nn.ModuleDict({"dropout": dropout, "all_modules": nn.Sequential(dropout)})
    assert len(drawn_layers(with_drawn_dropout(block))) == 1
    assert block["dropout"] is block["all_modules"][0]


def test_the_same_seed_gives_the_same_draw_and_another_one_another(network):
    assert torch.equal(drawn(network, 1), drawn(network, 1))
    assert not torch.equal(drawn(network, 1), drawn(network, 2))


def test_without_a_seed_nothing_is_dropped(network):
    torch.testing.assert_close(drawn(network, None), torch.ones(1, 50, 4, 4), atol=1e-4, rtol=1e-4)


def test_channels_are_dropped_whole_and_the_others_are_scaled_to_the_same_mean(network):
    channels = drawn(network, 0)[0].flatten(1)  # (50, voxels)
    assert (channels == channels[:, :1]).all()
    values = channels[:, 0]
    assert set(values.round(decimals=3).tolist()) == {0.0, 2.0}  # 1 / (1 - 0.5)
    assert 10 < (values == 0).sum() < 40


def test_layers_draw_masks_of_their_own():
    network = with_drawn_dropout(nn.Sequential(nn.Dropout2d(0.5), nn.Dropout2d(0.5)))
    first, second = drawn_layers(network)
    assert not torch.equal(first.mask(64, 0), second.mask(64, 0))


def test_tiles_batches_and_flips_of_a_draw_share_its_mask(network):
    """The prediction of a draw for a voxel does not depend on the rest of the batch."""
    image = torch.randn(1, 50, 4, 8, generator=torch.Generator().manual_seed(0))
    whole = drawn(network, 3, image)
    tiles = drawn(network, 3, torch.cat([image[..., :4], image[..., 4:]]))
    torch.testing.assert_close(torch.cat(list(tiles), dim=-1)[None], whole)
    torch.testing.assert_close(drawn(network, 3, image.flip(3)).flip(3), whole)


def test_random_numbers_of_others_stay_as_they_were(network):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    drawn(network, 1)
    assert torch.equal(torch.rand(3), expected)
