"""The loss of a mixture of classifiers: nnU-Net's loss of the mixture, and of each classifier by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SegmentationLoss = Callable[[Any, Any], Tensor]


class MixtureOutput(NamedTuple):
    """The output of a mixture in training.

    Attributes:
        mixed: the mixture's output, (B, C, *spatial), or a list of them with deep supervision.
        classifiers: the logits of each classifier in the same form.
    """

    mixed: Tensor | list[Tensor]
    classifiers: Sequence[Tensor | list[Tensor]]


class MixtureLoss(nn.Module):
    """L(Q) + w sum_i L(P_i), of the mixture Q and the K classifiers P_i; for a plain output, as in validation, L(Q).

    With w = 1 - 1/K, classifiers that agree get the gradient of a network that is trained alone: that of L(Q) is 1/K
    of it. Without the second term, classifiers are trained with a K-th of the learning rate, and one that is wrong
    where another is right learns even less.

    Args:
        stock: the loss of the mixture's output.
        of_classifier: the loss of a classifier's output.
        weight: w.
    """

    def __init__(self, stock: SegmentationLoss, of_classifier: SegmentationLoss, weight: float) -> None:
        super().__init__()
        self.stock = stock
        self.of_classifier = of_classifier
        self.weight = weight

    def forward(self, output: Any, target: Any) -> Tensor:
        """The loss, a scalar.

        Args:
            output: a `MixtureOutput`, or the output of the mixture.
            target: nnU-Net's target; a list with deep supervision.
        """
        if not isinstance(output, MixtureOutput):
            return self.stock(output, target)
        losses = [self.of_classifier(logits, target) for logits in output.classifiers]
        return self.stock(output.mixed, target) + self.weight * torch.stack(losses).sum()
