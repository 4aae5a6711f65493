"""RMSprop with a warm-up and a cosine, the optimizer of the Streaming paper (arXiv 2502.09269)."""

from __future__ import annotations

import torch

from nnunet_ext.schedules import warm_up_cosine_learning_rate
from nnunet_ext.trainers.base import EpochSchedule, ExtTrainer

PEAK_LR = 1e-4
WEIGHT_DECAY = 1e-7


class RMSprop(ExtTrainer):
    """The paper's optimizer with the numbers and the schedule of its released code.

    The rate rises over ten epochs, over half the training if that is shorter than twenty, and falls as a cosine from
    then on.
    """

    initial_lr: float
    weight_decay: float
    momentum: float = 0.9
    warm_up_epochs: int = 10
    final_lr_factor: float = 1e-4  # the code takes the rate itself, 1e-4, as the factor: 1e-8 in the end

    def set_hyperparameters(self) -> None:
        super().set_hyperparameters()
        self.initial_lr = PEAK_LR
        self.weight_decay = WEIGHT_DECAY

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, EpochSchedule]:
        optimizer = torch.optim.RMSprop(
            self.network.parameters(), lr=self.initial_lr, weight_decay=self.weight_decay, momentum=self.momentum
        )
        return optimizer, EpochSchedule(optimizer, self.learning_rate_at)

    def learning_rate_at(self, epoch: int) -> float:
        """The rate of an epoch."""
        return warm_up_cosine_learning_rate(
            epoch,
            total_epochs=self.num_epochs,
            peak_lr=self.initial_lr,
            warm_up_epochs=min(self.warm_up_epochs, self.num_epochs // 2),
            final_factor=self.final_lr_factor,
        )
