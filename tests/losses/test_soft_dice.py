"""Soft Dice by hand, against its definition in NumPy and MONAI's."""

import numpy as np
import pytest
import torch
from drawn_targets import certain, drawn, foreground, random_labels, random_logits, require_agreement, value_of
from monai.losses.dice import DiceLoss

from nnunet_ext.losses.soft_dice import SoftDiceTerm
from nnunet_ext.losses.targets import OutputForm


def soft_dice(logits, labels, form=None):
    return value_of(SoftDiceTerm(form or OutputForm()), logits, labels)


@pytest.mark.parametrize(
    ("found", "expected"), [("0111", 0), ("0011", 1 / 5), ("0001", 1 / 2), ("1000", 1), ("0000", 1)]
)
def test_one_minus_dice_by_hand(found, expected):
    """Of three voxels all: 0; two: 1 - 4/5; one: 1 - 2/4; another one, or none: 1."""
    assert soft_dice(certain(drawn(found), 2), drawn("0111")).item() == pytest.approx(expected, abs=1e-6)


def test_even_odds_by_hand():
    """sum(p g) = 3/2, sum(p) + sum(g) = 2 + 3: 1 - 3/5."""
    assert soft_dice(torch.zeros(1, 2, 4), drawn("0111")).item() == pytest.approx(2 / 5)


def test_the_mean_is_over_classes_that_a_patch_has():
    """Patch 1: class 1 to 1/5, class 2 perfect. Patch 2: class 1 to 1/2, class 2 absent but predicted."""
    truth = torch.cat([drawn("011122"), drawn("011100")])
    found = torch.cat([drawn("001122"), drawn("000122")])
    assert soft_dice(certain(found, 3), truth).item() == pytest.approx((1 / 5 + 0 + 1 / 2) / 3)


@pytest.mark.parametrize("shape", [(4, 5), (3, 3, 4)])
def test_value_and_gradient_are_those_of_the_definition(shape):
    labels = random_labels(shape)
    require_agreement(
        lambda given: soft_dice(given, labels),
        lambda exact: np.mean([1 - 2 * (p * g).sum() / (p.sum() + g.sum()) for p, g in foreground(exact, labels)]),
        random_logits(labels),
    )


def test_it_is_monais_without_smoothing():
    labels = random_labels((4, 5, 3))
    logits = random_logits(labels)
    monai = DiceLoss(include_background=False, softmax=True, to_onehot_y=True, smooth_nr=0, smooth_dr=0)
    assert soft_dice(logits, labels).item() == pytest.approx(monai(logits, labels).item(), rel=1e-5)
