"""A loss whose samples count by a weight each."""

from __future__ import annotations

from torch import Tensor, nn


class CaseWeightedLoss(nn.Module):
    """(1 / B) sum_i w_i L(output_i, target_i), each sample of the batch on its own; L of the batch if all w are 1.

    Dice over the whole batch, where nnU-Net's plans ask for it, is Dice of each sample where weights differ from 1.

    Args:
        loss: of logits (B, C, *spatial) and nnU-Net's target.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        self.weights: tuple[float, ...] = ()  # of the batch that comes next; none are all 1

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """A scalar.

        Args:
            logits: (B, C, *spatial).
            target: (B, channels, *spatial).

        Raises:
            ValueError: if the weights are not one per sample.
        """
        if all(weight == 1 for weight in self.weights):
            return self.loss(logits, target)
        if len(self.weights) != len(logits):
            raise ValueError(
                f"A batch needs one weight per sample; found {len(self.weights)} for {len(logits)} samples."
            )
        samples = zip(self.weights, logits.split(1), target.split(1), strict=True)
        return sum(weight * self.loss(*sample) for weight, *sample in samples if weight) / len(logits) + (
            0 * logits.sum()  # a gradient, if all weights are 0
        )
