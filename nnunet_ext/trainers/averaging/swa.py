"""Stochastic weight averaging over the last epochs of a training (arXiv 1803.05407)."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from nnunet_ext.schedules import plateau_first_epoch, poly_then_constant_learning_rate
from nnunet_ext.trainers.averaging.averaged_weights import write_averaged_checkpoint
from nnunet_ext.trainers.base import EpochSchedule
from nnunet_ext.trainers.part_state import PartWithState


class SWA(PartWithState):
    """Stochastic weight averaging (Izmailov et al. 2018, arXiv 1803.05407).

    The learning rate follows nnU-Net's decay until the fraction `swa_start` of the epochs and is constant from then
    on; the weights at the end of each of these last epochs are averaged. Writes `checkpoint_swa.pth`.
    """

    swa_start: float = 0.75
    swa: AveragedModel
    state_key = "swa"

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, EpochSchedule]:
        optimizer, _ = super().configure_optimizers()
        return optimizer, EpochSchedule(optimizer, self.learning_rate_at)

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch: nnU-Net's decay, constant from the first averaged epoch on."""
        return poly_then_constant_learning_rate(
            epoch, total_epochs=self.num_epochs, initial_lr=self.initial_lr, constant_from=self.swa_start
        )

    def initialize(self) -> None:
        super().initialize()
        self.swa = AveragedModel(self.plain_network)

    def on_epoch_end(self) -> None:
        if self.current_epoch >= plateau_first_epoch(self.num_epochs, self.swa_start):
            self.swa.update_parameters(self.plain_network)
        super().on_epoch_end()

    def part_state(self) -> dict[str, Any]:
        return self.swa.state_dict()

    def load_part_state(self, state: dict[str, Any]) -> None:
        self.swa.load_state_dict(state)

    def on_train_end(self) -> None:
        try:
            write_averaged_checkpoint(self, self.swa, "checkpoint_swa.pth")
        finally:  # nnU-Net's checkpoint_final.pth is written even if this fails
            super().on_train_end()
