"""A draw turns dropout on, and nothing else; the same seed gives the same draw."""

import pytest
import torch
from torch import nn

from nnunet_ext.architectures.dropout_draws import dropout_draw, dropout_layers
from nnunet_ext.models.members import MemberError, MemberRule, find_members
from nnunet_ext.models.model import load_model

CPU = torch.device("cpu")


@pytest.fixture
def network():
    return nn.Sequential(nn.BatchNorm1d(50), nn.Dropout(0.5), nn.Dropout(0.0)).eval()


def drawn(network, seed):
    with dropout_draw(network, seed, CPU):
        return network(torch.ones(1, 50))


def test_layers_that_drop_nothing_do_not_count(network):
    assert dropout_layers(network) == [network[1]]


def test_the_same_seed_gives_the_same_draw_and_another_one_another(network):
    assert torch.equal(drawn(network, 1), drawn(network, 1))
    assert not torch.equal(drawn(network, 1), drawn(network, 2))


def test_without_a_seed_nothing_is_dropped(network):
    torch.testing.assert_close(drawn(network, None), torch.ones(1, 50), atol=1e-4, rtol=1e-4)


def test_only_dropout_is_on_and_off_again_afterwards(network):
    with dropout_draw(network, 0, CPU):
        assert [layer.training for layer in network] == [False, True, False]
    assert not any(layer.training for layer in network)


def test_dropout_is_off_again_after_an_error(network):
    with pytest.raises(ZeroDivisionError), dropout_draw(network, 0, CPU):
        _ = 1 / 0
    assert not network[1].training


def test_the_random_numbers_of_others_stay_as_they_were(network):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    drawn(network, 1)
    assert torch.equal(torch.rand(3), expected)


# --- members ---


@pytest.mark.parametrize(("text", "draws"), [("mc-dropout", 10), ("mc-dropout:3", 3)])  # 10: arXiv 2212.06278
def test_each_fold_is_drawn_that_often(make_model_folder, text, draws):
    members = find_members(make_model_folder(folds=(0, 1)), None, MemberRule.parse(text))
    assert len(members) == 2 * draws
    assert [member.name for member in members[:2]] == ["fold_0/mc-dropout_00", "fold_0/mc-dropout_01"]
    assert [member.dropout_seed for member in members] == [*range(draws), *range(draws)]
    assert {member.path.name for member in members} == {"checkpoint_final.pth"}


def test_a_stride_of_draws_means_nothing():
    with pytest.raises(MemberError, match=r"mc-dropout with an optional :COUNT; found 'mc-dropout:10:2'"):
        MemberRule.parse("mc-dropout:10:2")


def test_a_network_without_dropout_is_refused(make_model_folder):
    with pytest.raises(MemberError, match=r"needs a network with dropout layers; .*-tr nnUNetTrainerMCDropout"):
        load_model(make_model_folder(), None, MemberRule.parse("mc-dropout:3"), device=CPU)
