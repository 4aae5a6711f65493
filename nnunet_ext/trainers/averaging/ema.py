"""An exponential moving average of the weights over the iterations of a training."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from nnunet_ext.trainers.averaging.averaged_weights import write_averaged_checkpoint
from nnunet_ext.trainers.part_state import PartWithState


class EMA(PartWithState):
    """Exponential moving average of the weights over the iterations. Writes `checkpoint_ema.pth`.

    The decay grows as (1 + t)/(10 + t) up to `ema_decay`, so that initial weights do not dominate a short training.
    """

    ema_decay: float = 0.999
    ema: AveragedModel
    state_key = "ema"

    def initialize(self) -> None:
        super().initialize()
        self.ema = AveragedModel(self.plain_network, avg_fn=self.moving_average)

    def moving_average(
        self, average: torch.Tensor, current: torch.Tensor, updates: torch.Tensor | int
    ) -> torch.Tensor:
        """Updates the average of one tensor; `updates` is the number of updates so far."""
        decay = torch.as_tensor((1 + updates) / (10 + updates)).clamp_max(self.ema_decay)
        return torch.lerp(current, average, decay.to(average.dtype))

    def train_step(self, batch: dict) -> dict:
        result = super().train_step(batch)
        self.ema.update_parameters(self.plain_network)
        return result

    def part_state(self) -> dict[str, Any]:
        return self.ema.state_dict()

    def load_part_state(self, state: dict[str, Any]) -> None:
        self.ema.load_state_dict(state)

    def on_train_end(self) -> None:
        try:
            write_averaged_checkpoint(self, self.ema, "checkpoint_ema.pth")
        finally:  # nnU-Net's checkpoint_final.pth is written even if this fails
            super().on_train_end()
