"""The ensemble network returns the log of the mean probability; probabilities are worked out by hand or in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_ext.architectures.posterior import PosteriorNetwork, posterior_weights, to_logits


class FixedLogits(nn.Module):
    """Returns the same logits, (1, C, 1), for any image."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits)[None, :, None]

    def forward(self, image):
        return self.logits


def convolution(seed, classes=3):
    torch.manual_seed(seed)
    return nn.Conv2d(1, classes, 3, padding=1)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


IMAGE = torch.linspace(-3, 3, 32).reshape(2, 1, 4, 4)


def test_two_members_by_hand():
    # softmax(ln 9, 0) = (0.9, 0.1) and softmax(0, 0) = (0.5, 0.5); their mean is (0.7, 0.3).
    # The mean of the logits would be (ln 3, 0), whose softmax is (0.75, 0.25).
    network = PosteriorNetwork([FixedLogits(np.log(9), 0.0), FixedLogits(0.0, 0.0)])
    assert network(IMAGE)[0, :, 0].tolist() == pytest.approx([np.log(0.7), np.log(0.3)])


def test_two_members_with_regions_by_hand():
    # sigmoid(ln 3) = 0.75 and sigmoid(-ln 3) = 0.25 in the first region: mean 0.5, log-odds 0.
    # sigmoid(ln 9) = 0.9 and sigmoid(0) = 0.5 in the second: mean 0.7, log-odds ln(7/3).
    network = PosteriorNetwork([FixedLogits(np.log(3), np.log(9)), FixedLogits(-np.log(3), 0.0)])
    network.regions.fill_(True)
    assert network(IMAGE)[0, :, 0].tolist() == pytest.approx([0, np.log(7 / 3)], abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(("regions", "probabilities"), [(False, softmax), (True, sigmoid)])
def test_nnunets_nonlinearity_gives_the_mean_of_the_members_probabilities(count, regions, probabilities):
    members = [convolution(seed) for seed in range(count)]
    network = PosteriorNetwork(members)
    network.regions.fill_(regions)
    with torch.no_grad():
        expected = np.mean([probabilities(member(IMAGE).double().numpy()) for member in members], axis=0)
        output = network(IMAGE)
    assert output.dtype == torch.float32
    assert output.shape == (2, 3, 4, 4)
    np.testing.assert_allclose(probabilities(output.double().numpy()), expected, atol=1e-6)


def test_one_member_is_that_network():
    member = convolution(0)
    with torch.no_grad():
        ours, plain = PosteriorNetwork([member])(IMAGE), member(IMAGE)
    torch.testing.assert_close(ours.softmax(1), plain.softmax(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("regions", [False, True])
def test_impossible_classes_stay_finite_within_half_precision(regions):
    # ln 1e-7 = -16.118; fp16 reaches 65504, so sums of thousands of such logits still fit
    network = PosteriorNetwork([FixedLogits(1000.0, -1000.0)])
    network.regions.fill_(regions)
    output = network(IMAGE)[0, :, 0]
    assert output[1].item() == pytest.approx(np.log(1e-7), abs=1e-3)
    assert output[0].item() == pytest.approx(-np.log(1e-7) if regions else 0, abs=0.2)  # 1 - 1e-7 rounds in fp32


def test_half_precision_members_are_averaged_in_single_precision():
    # softmax(0, 11) = (1.67e-5, 0.99998): fp16 would round both
    half = FixedLogits(0.0, 11.0)
    half.logits = half.logits.half()
    output = PosteriorNetwork([half, half, half])(IMAGE)
    assert output.dtype == torch.float32
    assert output[0, 0, 0].item() == pytest.approx(-11 - np.log1p(np.exp(-11.0)), rel=1e-6)


def test_to_logits_by_hand():
    probabilities = torch.tensor([0.5, 0.0, 1.0])
    assert to_logits(probabilities, regions=False).tolist() == pytest.approx([np.log(0.5), np.log(1e-7), 0])
    assert to_logits(probabilities, regions=True)[0].item() == 0
    assert to_logits(probabilities, regions=True).isfinite().all()


@pytest.mark.parametrize("regions", [False, True])
def test_weights_of_members_load_into_a_network_of_as_many(regions):
    members = [convolution(seed) for seed in range(3)]
    weights = posterior_weights([member.state_dict() for member in members], regions=regions, mirror_axes=(0, 2))
    network = PosteriorNetwork([convolution(seed) for seed in range(10, 13)])
    network.load_state_dict(weights)  # strict
    assert bool(network.regions) is regions
    assert network.mirrored.tolist() == [True, False, True]
    for loaded, member in zip(network.members, members, strict=True):
        assert torch.equal(loaded.weight, member.weight)
        assert torch.equal(loaded.bias, member.bias)


def test_weights_of_another_number_of_members_do_not_load():
    weights = posterior_weights([convolution(0).state_dict()] * 2, regions=False, mirror_axes=None)
    with pytest.raises(RuntimeError, match=r"Missing key.*members\.2"):
        PosteriorNetwork([convolution(0) for _ in range(3)]).load_state_dict(weights)


def test_weights_are_not_copied():
    member = convolution(0).state_dict()
    weights = posterior_weights([member], regions=False, mirror_axes=None)
    assert weights["members.0.weight"].data_ptr() == member["weight"].data_ptr()


def test_a_posterior_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one member; found none"):
        posterior_weights([], regions=False, mirror_axes=None)
