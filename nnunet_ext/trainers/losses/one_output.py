"""Gets or replaces the loss of one output inside the wrappers of deep supervision and loss terms."""

from __future__ import annotations

from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import nn

from nnunet_ext.losses.added_terms import LossWithTerms


def loss_without_terms(loss: nn.Module) -> nn.Module:
    """The loss of the network's output without added terms."""
    return loss.base if isinstance(loss, LossWithTerms) else loss


def loss_of_one_output(loss: nn.Module) -> nn.Module:
    """The loss of a single tensor of logits and its target, without added terms and deep supervision."""
    loss = loss_without_terms(loss)
    return loss.loss if isinstance(loss, DeepSupervisionWrapper) else loss


def with_loss_of_one_output(loss: nn.Module, replacement: nn.Module) -> nn.Module:
    """Replaces the loss of one output in nnU-Net's loss; the weights of deep supervision are unchanged."""
    if not isinstance(loss, DeepSupervisionWrapper):
        return replacement
    loss.loss = replacement
    return loss
