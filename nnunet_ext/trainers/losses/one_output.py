"""The loss of one output within what nnU-Net and loss terms put around it."""

from __future__ import annotations

from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import nn

from nnunet_ext.losses.added_terms import LossWithTerms


def loss_of_one_output(loss: nn.Module) -> nn.Module:
    """The loss of a single tensor of logits and its target, without terms and inside nnU-Net's deep supervision."""
    if isinstance(loss, LossWithTerms):
        loss = loss.base
    return loss.loss if isinstance(loss, DeepSupervisionWrapper) else loss


def with_loss_of_one_output(loss: nn.Module, replacement: nn.Module) -> nn.Module:
    """nnU-Net's loss with another loss of one output; its deep supervision keeps its weights."""
    if not isinstance(loss, DeepSupervisionWrapper):
        return replacement
    loss.loss = replacement
    return loss
