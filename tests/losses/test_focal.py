"""Focal loss by hand, against its definition in NumPy, MONAI's and that of the Streaming ensemble."""

import math

import numpy as np
import pytest
import torch
from drawn_targets import certain, drawn, logit, random_labels, random_logits, require_agreement, softmax
from monai.losses.focal_loss import FocalLoss as MonaiFocalLoss

from nnunet_ext.losses.dice_focal import focal_loss
from nnunet_ext.losses.focal import FocalLoss
from nnunet_ext.losses.targets import OutputForm, without_ignored

LN_2 = math.log(2)


def focal(logits, target, form=None, gamma=2.0):
    return FocalLoss(form or OutputForm(), gamma=gamma)(logits, target)


@pytest.mark.parametrize(("gamma", "factor"), [(0, 1), (1, 1 / 2), (2, 1 / 4)])
def test_even_odds_by_hand(gamma, factor):
    """(1 - 1/2)^gamma ln 2 in every voxel, whichever its class is."""
    assert focal(torch.zeros(1, 2, 4), drawn("0111"), gamma=gamma).item() == pytest.approx(factor * LN_2, rel=1e-6)


def test_background_counts_as_the_other_classes_do():
    """Two voxels with p = 1/4 of class 1, labels 0 and 1: (1/4)^2 ln(4/3) and (3/4)^2 ln 4."""
    logits = torch.zeros(1, 2, 2)
    logits[:, 1] = logit(0.25)
    expected = (math.log(4 / 3) / 16 + 9 * math.log(4) / 16) / 2
    assert focal(logits, drawn("01")).item() == pytest.approx(expected, rel=1e-5)


def test_a_perfect_prediction_has_no_loss():
    labels = drawn("0122")
    assert focal(certain(labels, 3), labels).item() == 0


def test_a_certain_and_wrong_voxel_costs_its_logit():
    """p_t = exp(-200): (1 - p_t)^2 200 in one voxel of four."""
    assert focal(certain(drawn("0111"), 2), drawn("1111")).item() == pytest.approx(200 / 4)


def test_regions_are_a_mean_over_both_by_hand():
    """p = 3/4 in both, g = (1, 0): (1/4)^2 ln(4/3) and (3/4)^2 ln 4."""
    logits = torch.full((1, 2, 1), logit(0.75))
    expected = (math.log(4 / 3) / 16 + 9 * math.log(4) / 16) / 2
    loss = focal(logits, torch.tensor([[[1], [0]]]), OutputForm(regions=True))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_ignored_voxels_do_not_count_in_the_mean():
    loss = focal(torch.zeros(1, 2, 4), drawn("0199"), OutputForm(ignore_label=9))
    assert loss.item() == pytest.approx(LN_2 / 4, rel=1e-6)


@pytest.mark.parametrize("shape", [(4, 5), (3, 3, 4)])
@pytest.mark.parametrize("gamma", [0, 1, 2, 3.5])
def test_value_and_gradient_are_those_of_the_definition(shape, gamma):
    labels = random_labels(shape)

    def definition(exact):
        p_t = np.take_along_axis(softmax(exact), labels.numpy(), axis=1)
        return -np.mean((1 - p_t) ** gamma * np.log(p_t))

    require_agreement(lambda given: focal(given, labels, gamma=gamma), definition, random_logits(labels))


def test_regions_have_the_value_and_gradient_of_the_definition():
    logits = random_logits(drawn("0" * 9))
    g = (random_logits(drawn("0" * 9), seed=1) > 0).float()

    def definition(exact):
        p = 1 / (1 + np.exp(-exact))
        p_t = np.where(g.numpy() > 0, p, 1 - p)
        return -np.mean((1 - p_t) ** 2 * np.log(p_t))

    require_agreement(lambda given: focal(given, g, OutputForm(regions=True)), definition, logits)


def test_without_focus_it_is_cross_entropy():
    labels = random_labels((4, 5))
    logits = random_logits(labels)
    expected = torch.nn.functional.cross_entropy(logits, labels[:, 0])
    assert focal(logits, labels, gamma=0).item() == pytest.approx(expected.item(), rel=1e-6)


def test_it_is_monais_times_the_number_of_classes():
    """MONAI's mean is over classes as well, of which all but one have 0."""
    labels = random_labels((4, 5))
    logits = random_logits(labels)
    monai = MonaiFocalLoss(use_softmax=True, to_onehot_y=True)
    assert focal(logits, labels).item() == pytest.approx(3 * monai(logits, labels).item(), rel=1e-5)


def test_it_is_that_of_the_streaming_ensemble_without_alpha_times_the_number_of_classes():
    labels = random_labels((4, 5))
    logits = random_logits(labels)
    other = focal_loss(logits, without_ignored(labels), alpha=1.0)
    assert focal(logits, labels).item() == pytest.approx(3 * other.item(), rel=1e-5)


@pytest.mark.parametrize("gamma", [-1, 0.5, math.nan, math.inf])
def test_an_exponent_without_a_finite_slope_is_refused(gamma):
    with pytest.raises(ValueError, match="0 or at least 1; found"):
        FocalLoss(OutputForm(), gamma=gamma)


@pytest.mark.parametrize("gamma", [0, 1, 1.5, 2])
@pytest.mark.parametrize("regions", [False, True])
def test_at_the_limits_of_p_the_gradient_is_finite(gamma, regions):
    logits = (1e4 * torch.tensor([[[1.0, -1, 0], [-1, 1, 0]]])).requires_grad_()
    target = torch.tensor([[[1, 1, 1], [0, 0, 0]]]) if regions else drawn("001")
    loss = focal(logits, target, OutputForm(regions=regions), gamma=gamma)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
