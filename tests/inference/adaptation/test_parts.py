"""The parts of an adaptation: which weights, which voxels, what is lowered, and when it is given up."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from nnunet_ext.architectures.channels_last import with_channels_last
from nnunet_ext.inference.adaptation.affine_norms import affine_parameters, fresh_copies
from nnunet_ext.inference.adaptation.foreground import confidence_of, entropy_of, foreground_of, near
from nnunet_ext.inference.adaptation.guard import Look, jump, look_at, together
from nnunet_ext.inference.adaptation.steps import Patch, adapt, patches_of
from nnunet_ext.inference.sliding_window import tile_image
from nnunet_ext.options import AdaptOptions

LOGIT = math.log(3)  # of probability 3/4 against 1/4


def small_network(seed: int = 0) -> nn.Sequential:
    """Two norms with scale and shift, one without."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.InstanceNorm2d(4, affine=True),
        nn.LeakyReLU(),
        nn.InstanceNorm2d(4),
        nn.GroupNorm(2, 4),
        nn.Conv2d(4, 3, 1),
    ).eval()


def bright_square(gamma: float) -> Patch:
    """A square on a darker ground with a ramp of grey, its contrast changed, with the square as the neighbourhood."""
    image = torch.linspace(0, 0.3, 16).repeat(16, 1)
    image[4:12, 4:12] += 0.6
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[2:14, 2:14] = True
    return Patch(image[None] ** gamma, inside)


# --- which weights ---


def test_norms_are_found_with_their_names_and_others_are_not():
    network = small_network()
    found = {id(parameter) for parameter in affine_parameters(network)}
    assert [name for name, p in network.named_parameters() if id(p) in found] == [
        "1.weight", "1.bias", "4.weight", "4.bias",
    ]  # fmt: skip


def test_the_norms_of_cpu_networks_are_found():
    assert len(affine_parameters(with_channels_last(small_network()))) == 4


@pytest.mark.parametrize("norm", [nn.Identity(), nn.InstanceNorm2d(2), nn.BatchNorm2d(2, affine=False)])
def test_norms_without_scale_and_shift_give_nothing(norm):
    assert affine_parameters(nn.Sequential(nn.Conv2d(1, 2, 1), norm)) == []


def test_channels_last_norms_have_the_gradient_of_the_norms_that_they_replace():
    image = torch.randn(2, 1, 8, 8)
    gradients = []
    for network in (small_network(), with_channels_last(small_network())):
        network(image).square().sum().backward()
        gradients.append([parameter.grad for parameter in affine_parameters(network)])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_copies_end_with_their_context_even_if_it_fails():
    network = small_network()
    before = copy.deepcopy(network.state_dict())
    tensors = [parameter.data_ptr() for parameter in network.parameters()]
    with pytest.raises(RuntimeError, match="stop"), fresh_copies(network) as parameters:
        for parameter in parameters:
            parameter.data.add_(1)
        raise RuntimeError("stop")
    assert [parameter.data_ptr() for parameter in network.parameters()] == tensors
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


# --- which voxels ---


def test_the_neighbourhood_is_a_cube_in_3d_and_a_square_in_2d():
    foreground = torch.zeros(5, 9, 9, dtype=torch.bool)
    foreground[2, 4, 4] = True
    assert near(foreground, 2, axes=3).sum() == 5**3
    in_slice = near(foreground, 2, axes=2)
    assert in_slice.sum() == 5**2
    assert in_slice[2, 2:7, 2:7].all()
    assert torch.equal(near(foreground, 0, axes=3), foreground)


def test_foreground_is_any_class_but_the_first_or_any_region():
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, -2.0]])
    assert foreground_of(logits, regions=False).tolist() == [False, True, False]
    assert foreground_of(logits, regions=True).tolist() == [True, True, False]


def test_tiles_are_spread_over_those_near_the_foreground():
    """Six slices of one tile each, the neighbourhood in slices 1 to 5: of three tiles, the first, middle and last."""
    image = torch.arange(6.0).reshape(1, 6, 1, 1).expand(1, 6, 4, 4)
    around = torch.zeros(6, 4, 4, dtype=torch.bool)
    around[1:, 1, 1] = True
    patches = patches_of(tile_image(image, (4, 4)), around, 3, torch.device("cpu"))
    assert [patch.image.unique().tolist() for patch in patches] == [[1], [3], [5]]
    assert all(patch.near.sum() == 1 for patch in patches)
    assert len(patches_of(tile_image(image, (4, 4)), around, 99, torch.device("cpu"))) == 5


def test_padding_is_never_near_the_foreground():
    around = torch.ones(2, 3, 3, dtype=torch.bool)
    (patch, _) = patches_of(tile_image(torch.zeros(1, 2, 3, 3), (8, 8)), around, 8, torch.device("cpu"))
    assert patch.near.sum() == 9


# --- what is lowered ---


def test_entropy_of_two_classes_and_of_regions_by_hand():
    """Of 3/4 and 1/4 it is 0.8113 bits; of a half, one bit."""
    classes = torch.tensor([[LOGIT, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(entropy_of(classes, regions=False), torch.tensor([0.811278, 1.0]))
    regions = torch.tensor([[LOGIT], [0.0]])
    torch.testing.assert_close(entropy_of(regions, regions=True), torch.tensor([(0.811278 + 1) / 2]))
    torch.testing.assert_close(confidence_of(regions, regions=True), torch.tensor([(0.75 + 0.5) / 2]))


@pytest.mark.parametrize("regions", [False, True])
def test_the_gradient_is_finite_where_probabilities_are_0(regions):
    logits = torch.tensor([[1000.0], [-1000.0], [0.0]], requires_grad=True)
    entropy_of(logits, regions=regions).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_steps_lower_the_entropy_of_a_shifted_phantom_and_change_norms_only():
    network, patch = small_network(), bright_square(gamma=2)
    before = copy.deepcopy(network.state_dict())

    def entropy() -> float:
        with torch.no_grad():
            return float(entropy_of(network(patch.image[None])[0], regions=False)[patch.near].mean())

    plain = entropy()
    options = AdaptOptions(steps=5, learning_rate=1e-2, largest_volume_change=100, largest_confidence_change=1)
    assert adapt(network, affine_parameters(network), [patch], options, regions=False) is None
    assert entropy() < plain
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"1.weight", "1.bias", "4.weight", "4.bias"}


def test_steps_end_where_the_prediction_jumps():
    network = small_network()
    options = AdaptOptions(steps=50, learning_rate=1.0, largest_confidence_change=0.01, largest_volume_change=100)
    jumped = adapt(network, affine_parameters(network), [bright_square(gamma=1)], options, regions=False)
    assert jumped is not None
    assert "confidence" in jumped


# --- the guard ---


@pytest.mark.parametrize(
    ("after", "found"),
    [
        (Look(120, 100, 80.0), None),  # + 20 %, and the limit is 20 %
        (Look(121, 100, 80.0), "the foreground's volume changed by +21%"),
        (Look(0, 100, 80.0), "the foreground's volume changed by -100%"),
        (Look(100, 100, 91.0), "the confidence near the foreground changed by +0.110"),
        (Look(100, 100, 69.0), "the confidence near the foreground changed by -0.110"),
        (Look(100, 100, math.nan), "the confidence near the foreground changed by +nan"),
    ],
)
def test_a_jump_is_a_change_beyond_the_limits_in_either_direction(after, found):
    assert jump(Look(100, 100, 80.0), after, AdaptOptions()) == found


def test_tiles_are_looked_at_together():
    assert together([Look(1, 2, 1.0), Look(3, 4, 3.5)]) == Look(4, 6, 4.5)


def test_a_look_counts_the_foreground_everywhere_and_the_confidence_nearby():
    logits = torch.tensor([[0.0, 0.0, LOGIT], [LOGIT, 9.0, 0.0]])
    look = look_at(logits, torch.tensor([True, False, True]), regions=False)
    assert (look.foreground, look.near) == (2, 2)
    assert look.mean_confidence == pytest.approx(0.75)


@pytest.mark.parametrize(
    "wrong", [{"steps": -1}, {"tiles": 0}, {"margin": -1}, {"learning_rate": 0}, {"largest_volume_change": 0}]
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AdaptOptions(**wrong)
