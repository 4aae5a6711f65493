"""The region-related focal loss by hand and against its definition in NumPy."""

import math

import numpy as np
import pytest
import torch
from drawn_targets import certain, drawn, foreground, logit, random_labels, random_logits, require_agreement

from nnunet_ext.losses.region_focal import RegionFocalLoss
from nnunet_ext.losses.targets import OutputForm

PERFECT = 1 - math.log(100) / math.log(40)
EPSILON = 1e-8


def region_focal(logits, labels, form=None, **options):
    return RegionFocalLoss(form or OutputForm(), **options)(logits, labels)


def part(overlap, truth, predicted, beta=100, gamma=40):
    """1 - (2 I + eps) F / (S + eps) of I, R and sum(p)."""
    both = truth + predicted
    a = 1 - (overlap + EPSILON) / (both + EPSILON)
    focus = (math.log(beta) + a * (math.log(truth + EPSILON) - math.log(overlap + EPSILON))) / math.log(gamma)
    return 1 - (2 * overlap + EPSILON) * focus / (both + EPSILON)


def test_a_perfect_prediction_is_below_0():
    assert pytest.approx(-0.248, abs=5e-4) == PERFECT
    labels = drawn("0011", "0211")
    assert region_focal(certain(labels, 3), labels).item() == pytest.approx(PERFECT, rel=1e-5)


def test_one_of_two_voxels_by_hand():
    """I = 1, S = 3, R = 2: a = 2/3, F = (ln 100 + 2/3 ln 2) / ln 40, l = 1 - 2/3 F.

    Of the background I = 2, S = 5, R = 2: a = 3/5, F = ln 100 / ln 40, l = 1 - 4/5 F.
    """
    inside = 1 - 2 / 3 * (math.log(100) + 2 / 3 * math.log(2)) / math.log(40)
    outside = 1 - 4 / 5 * math.log(100) / math.log(40)
    loss = region_focal(certain(drawn("0001"), 2), drawn("0011"))
    assert loss.item() == pytest.approx((inside + outside) / 2, rel=1e-5)


def test_even_odds_by_hand():
    """I = 1, S = 4, R = 2 for the class as for the background."""
    assert region_focal(torch.zeros(1, 2, 4), drawn("0011")).item() == pytest.approx(part(1, 2, 2), rel=1e-5)


def test_beta_and_gamma_are_those_given():
    loss = region_focal(torch.zeros(1, 2, 4), drawn("0011"), beta=10.0, gamma=5.0)
    assert loss.item() == pytest.approx(part(1, 2, 2, beta=10, gamma=5), rel=1e-5)


@pytest.mark.parametrize("number", [1.0, 0.5, -1.0, math.nan])
def test_beta_and_gamma_are_above_1(number):
    with pytest.raises(ValueError, match="must be above 1; found"):
        RegionFocalLoss(OutputForm(), beta=number)
    with pytest.raises(ValueError, match="must be above 1; found"):
        RegionFocalLoss(OutputForm(), gamma=number)


def test_the_more_is_found_the_lower_it_is():
    truth = drawn("00011111")
    losses = [region_focal(certain(drawn("0" * (8 - found) + "1" * found), 2), truth).item() for found in range(6)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(PERFECT, rel=1e-5)


def test_an_absent_class_that_is_predicted_costs_by_its_background():
    """l(p, g) is 1, for I and R are 0. Of the background I = 3, S = 7, R = 4."""
    loss = region_focal(certain(drawn("0001"), 2), drawn("0000"))
    assert loss.item() == pytest.approx((1 + part(3, 4, 3)) / 2, rel=1e-5)


def test_an_absent_class_that_is_not_predicted_is_perfect():
    labels = drawn("0011")
    assert region_focal(certain(labels, 4), labels).item() == pytest.approx(PERFECT, rel=1e-5)


def test_an_absent_class_has_a_gradient_that_removes_it():
    logits = torch.zeros(1, 1, 4)
    logits[..., 0] = logit(0.75)
    logits.requires_grad_()
    region_focal(logits, torch.zeros(1, 1, 4), OutputForm(regions=True)).backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad > 0).all()


def test_a_patch_of_ignored_voxels_counts_as_0_in_the_mean():
    labels = torch.cat([drawn("0011"), drawn("9999")])
    loss = region_focal(certain(labels.where(labels != 9, 0), 2), labels, OutputForm(ignore_label=9))
    assert loss.item() == pytest.approx(PERFECT / 2, rel=1e-5)


@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 4)])
def test_value_and_gradient_are_those_of_the_definition(shape):
    labels = random_labels(shape)

    def definition(exact):
        losses = []
        for p, g in foreground(exact, labels):
            inside = part((p * g).sum(), g.sum(), p.sum())
            outside = part(((1 - p) * (1 - g)).sum(), (1 - g).sum(), (1 - p).sum())
            losses.append((inside + outside) / 2)
        return np.mean(losses)

    require_agreement(lambda given: region_focal(given, labels), definition, random_logits(labels))
