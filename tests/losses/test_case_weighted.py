"""A loss whose samples count by a weight each."""

import pytest
import torch
from torch import nn

from nnunet_ext.losses.case_weighted import CaseWeightedLoss


class Square(nn.Module):
    """The mean square of the batch."""

    def forward(self, logits, target):
        return (logits - target).square().mean()


LOGITS = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1)
TARGET = torch.zeros(3, 1, 1, 1)


def weighted(*weights, logits=LOGITS):
    loss = CaseWeightedLoss(Square())
    loss.case_weights = weights
    return loss(logits, TARGET)


def test_weights_of_1_are_the_loss_of_the_batch():
    assert weighted(1, 1, 1) == weighted() == Square()(LOGITS, TARGET)


def test_each_sample_counts_by_its_weight():
    assert weighted(1, 0.5, 0).item() == pytest.approx((1 + 0.5 * 4 + 0) / 3)


def test_weights_of_0_give_a_gradient_of_0():
    logits = LOGITS.clone().requires_grad_()
    weighted(0, 0, 0, logits=logits).backward()
    assert not logits.grad.any()


def test_a_batch_of_another_size_is_refused():
    with pytest.raises(ValueError, match="found 2 for 3 samples"):
        weighted(1, 0.5)
