"""Losses whose samples count by a weight each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class CaseWeighting(nn.Module):
    """A loss, or a part of one, that counts each sample of a batch by the weight of its case.

    Attributes:
        case_weights: of the batch that comes next, one per sample; none are all 1.
    """

    case_weights: tuple[float, ...] = ()

    def by_case(self, loss: Callable[..., Tensor], said: Any, *others: Any) -> Tensor:
        """(1 / B) sum_i w_i L(samples_i), each sample of the batch on its own; L of the batch if all weights are 1.

        Args:
            loss: L of what is said and the others, a scalar.
            said: by the network: (B, ...), or a list of such outputs.
            others: (B, ...), or lists or mappings of such tensors, which have no gradient.

        Raises:
            ValueError: if the weights are not one per sample.
        """
        if all(weight == 1 for weight in self.case_weights):
            return loss(said, *others)
        levels = [said] if isinstance(said, Tensor) else list(said)
        weights = self.weights_of(len(levels[0]))
        batches = (said, *others)
        samples = [
            weight * loss(*(sample_of(batch, position) for batch in batches))
            for position, weight in enumerate(weights)
            if weight
        ]
        if not samples:  # DDP and the optimizer want a gradient of 0
            samples = [0 * level.float().sum() for level in levels]
        return torch.stack(samples).sum() / len(weights)

    def weights_of(self, samples: int) -> tuple[float, ...]:
        """One weight per sample of the batch.

        Raises:
            ValueError: if there are others.
        """
        weights = self.case_weights or (1.0,) * samples
        if len(weights) != samples:
            raise ValueError(f"A batch needs one weight per sample; found {len(weights)} for {samples} samples.")
        return weights


class CaseWeightedLoss(CaseWeighting):
    """A loss of one output, with samples weighted by `by_case`.

    In a batch whose weights differ from 1, Dice over the whole batch becomes Dice of each sample. Processes of DDP
    call the loss a different number of times then, so it must not gather anything from the others.

    Args:
        loss: of logits (B, C, *spatial) and nnU-Net's target.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """A scalar.

        Args:
            logits: (B, C, *spatial).
            target: (B, channels, *spatial).

        Raises:
            ValueError: if the weights are not one per sample.
        """
        return self.by_case(self.loss, logits, target)


def sample_of(batch: Any, position: int) -> Any:
    """One sample of a tensor (B, ...), or of each tensor of a sequence or mapping, as a batch of its own."""
    if isinstance(batch, Tensor):
        return batch[position : position + 1]
    if isinstance(batch, Mapping):
        return {name: sample_of(values, position) for name, values in batch.items()}
    return [sample_of(values, position) for values in batch]
