"""The loss of a mixture: L(Q) + w sum_i L(P_i)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nnunet_ext.architectures.streaming import FixedWeights, mixed_log_probabilities
from nnunet_ext.losses.mixture_loss import MixtureLoss, MixtureOutput

TARGET = torch.tensor([[0, 2, 1, 1]])


def mixed(*classifiers):
    """The output of a mixture with equal weights; classifiers are (1, 3, 4)."""
    logits = torch.stack(classifiers)
    weights = FixedWeights([1 / len(classifiers)] * len(classifiers))
    log_weights = weights(logits, valid_slices=None, regions=False).to(logits.dtype)
    return MixtureOutput(mixed_log_probabilities(logits, log_weights), classifiers)


def drawn(seed):
    """Logits of three classes at four voxels, with a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_identical_classifiers_get_the_gradient_of_a_network_trained_alone(count):
    alone, *classifiers = [drawn(0) for _ in range(count + 1)]
    loss = MixtureLoss(F.cross_entropy, F.cross_entropy, 1 - 1 / count)
    (expected,) = torch.autograd.grad(F.cross_entropy(alone, TARGET), alone)
    for found in torch.autograd.grad(loss(mixed(*classifiers), TARGET), classifiers):
        torch.testing.assert_close(found, expected)


def test_without_the_classifiers_own_loss_they_get_a_share_of_it():
    alone, first, second = drawn(0), drawn(0), drawn(0)
    loss = MixtureLoss(F.cross_entropy, F.cross_entropy, 0.0)
    (expected,) = torch.autograd.grad(F.cross_entropy(alone, TARGET), alone)
    for found in torch.autograd.grad(loss(mixed(first, second), TARGET), (first, second)):
        torch.testing.assert_close(found, expected / 2)


def test_the_value_is_the_mixtures_loss_plus_the_weighted_sum_of_the_classifiers():
    # true classes at two voxels: probabilities 1/2 and 1/4 in the first classifier, 1/2 and 3/4 in the second
    first = torch.tensor([[[0.5, 0.75], [0.5, 0.25]]]).log()
    second = torch.tensor([[[0.5, 0.25], [0.5, 0.75]]]).log()
    found = MixtureLoss(F.cross_entropy, F.cross_entropy, 0.5)(mixed(first, second), torch.tensor([[0, 1]]))
    in_mixture = -torch.tensor([0.5, 0.5]).log().mean()
    of_classifiers = -torch.tensor([0.5, 0.25]).log().mean() - torch.tensor([0.5, 0.75]).log().mean()
    torch.testing.assert_close(found, in_mixture + 0.5 * of_classifiers)


def test_the_output_in_validation_is_judged_as_nnunet_does():
    logits = drawn(1)
    found = MixtureLoss(F.cross_entropy, F.cross_entropy, 0.5)(logits, TARGET)
    torch.testing.assert_close(found, F.cross_entropy(logits, TARGET))
