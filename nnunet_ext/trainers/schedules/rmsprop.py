"""RMSprop with linear warm-up and cosine decay, the optimizer of the Streaming paper (arXiv 2502.09269)."""

from __future__ import annotations

import torch

from nnunet_ext.schedules import warm_up_cosine_learning_rate
from nnunet_ext.trainers.base import EpochSchedule, ExtTrainer

PEAK_LR = 1e-4
WEIGHT_DECAY = 1e-7


class RMSprop(ExtTrainer):
    """The paper's optimizer with the hyper-parameters and the schedule of its released code.

    The learning rate rises linearly over 10 epochs, or over half the training if that is shorter than 20 epochs, and
    then decays as a cosine.
    """

    initial_lr: float
    weight_decay: float
    momentum: float = 0.9
    warm_up_epochs: int = 10
    final_lr_factor: float = 1e-4  # the released code uses the peak rate as this factor: the final rate is 1e-8

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
        """The learning rate of an epoch."""
        return warm_up_cosine_learning_rate(
            epoch,
            total_epochs=self.num_epochs,
            peak_lr=self.initial_lr,
            warm_up_epochs=min(self.warm_up_epochs, self.num_epochs // 2),
            final_factor=self.final_lr_factor,
        )
