"""Low-rank adapters: what they compute, what trains, and that checkpoints hold plain, merged weights."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from nnunet_ext.architectures.low_rank import add_adapters, low_rank_convs


def network(*, rank=None, seed=0):
    """Two convolutions, the first listed twice, as nnU-Net's blocks do."""
    torch.manual_seed(seed)
    first = nn.Conv3d(2, 3, 3, stride=2, padding=1)
    module = nn.Module()
    module.conv, module.layers = first, nn.Sequential(first, nn.LeakyReLU(), nn.Conv3d(3, 2, (1, 3, 3), bias=False))
    if rank is not None:
        assert add_adapters(module, rank) == 2
    return module


def image():
    return torch.randn((2, 2, 8, 8, 8), generator=torch.Generator().manual_seed(3))


def trained(module, seed=1):
    """Adapters as after some training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for conv in low_rank_convs(module).values():
            conv.up.copy_(torch.randn(conv.up.shape, generator=generator))
    return module


@pytest.mark.parametrize("rank", [0, 1, 4])
def test_a_new_adapter_changes_nothing(rank):
    plain, adapted = network(), network(rank=rank)
    assert torch.equal(adapted.layers(image()), plain.layers(image()))
    assert all(torch.equal(adapted.state_dict()[name], tensor) for name, tensor in plain.state_dict().items())


def test_the_change_of_the_weights_is_the_product():
    adapted = trained(network(rank=2))
    conv, before = adapted.layers[0], network().layers[0].weight
    product = torch.einsum("or,ri->oi", conv.up, conv.down).reshape(before.shape)
    torch.testing.assert_close(conv.adapted_weight(), before + product)
    assert torch.linalg.matrix_rank(product.flatten(1)) == 2


def test_merged_weights_give_the_same_in_the_plain_network():
    adapted = trained(network(rank=2))
    plain = network(seed=9)
    plain.load_state_dict(adapted.state_dict())  # strict
    with torch.no_grad():
        torch.testing.assert_close(plain.layers(image()), adapted.layers(image()), rtol=1e-6, atol=1e-6)


def test_the_names_of_a_layer_share_one_tensor():
    weights = trained(network(rank=2)).state_dict()
    assert weights["conv.weight"].data_ptr() == weights["layers.0.weight"].data_ptr()


def test_merged_weights_follow_the_training():
    adapted = trained(network(rank=2))
    before = adapted.state_dict()
    trained(adapted, seed=2)
    assert not torch.equal(adapted.state_dict()["conv.weight"], before["conv.weight"])
    optimizer = torch.optim.SGD(adapted.parameters(), 0.1, foreach=True)
    kept = adapted.state_dict()
    adapted.layers(image()).square().mean().backward()
    optimizer.step()
    torch.testing.assert_close(adapted.state_dict()["conv.weight"], adapted.conv.adapted_weight().detach())
    assert not torch.equal(adapted.state_dict()["conv.weight"], kept["conv.weight"])


def test_a_copy_has_its_own_merged_weights():
    adapted = trained(network(rank=2))
    kept = adapted.state_dict()
    copy = deepcopy(adapted)
    trained(copy, seed=2)
    assert not torch.equal(copy.state_dict()["conv.weight"], kept["conv.weight"])
    assert torch.equal(adapted.state_dict()["conv.weight"], kept["conv.weight"])


def test_loading_plain_weights_empties_the_adapters():
    adapted = trained(network(rank=2))
    plain = network(seed=9)
    adapted.load_state_dict(plain.state_dict())
    assert torch.equal(adapted.layers(image()), plain.layers(image()))
    assert not adapted.conv.up.any()


def test_missing_weights_are_still_missed():
    weights = network().state_dict()
    del weights["layers.2.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*layers\.2\.weight"):
        network(rank=2).load_state_dict(weights)


def test_the_state_of_an_adapter_is_restored_exactly():
    adapted, other = trained(network(rank=2)), trained(network(rank=2, seed=9), seed=8)
    for name, conv in low_rank_convs(other).items():
        conv.load_adapter_state(low_rank_convs(adapted)[name].adapter_state())
    for one, expected in zip(other.parameters(), adapted.parameters(), strict=True):
        assert torch.equal(one, expected) or one.ndim == 1  # biases are not part of it


def test_it_compiles():
    adapted = trained(network(rank=2))
    compiled = torch.compile(adapted.layers, backend="aot_eager")
    torch.testing.assert_close(compiled(image()), adapted.layers(image()))
