"""Averages of the weights over a training: SWA over its last epochs, EMA over its iterations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, update_bn

from nnunet_ext.schedules import plateau_first_epoch, poly_then_constant_learning_rate
from nnunet_ext.trainers.base import EpochSchedule, ExtTrainer


class SWA(ExtTrainer):
    """Stochastic weight averaging (Izmailov et al. 2018, arXiv 1803.05407).

    The rate decays as nnU-Net's does up to `swa_start` of the epochs and stays there; the weights at the end of
    each epoch from then on are averaged. Writes `checkpoint_swa.pth`.
    """

    swa_start: float = 0.75
    swa: AveragedModel

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, EpochSchedule]:
        optimizer, _ = super().configure_optimizers()
        return optimizer, EpochSchedule(optimizer, self.learning_rate_at)

    def learning_rate_at(self, epoch: int) -> float:
        """nnU-Net's decay, constant from the first averaged epoch on."""
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

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), "swa": self.swa.state_dict()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        if "swa" in state:
            self.swa.load_state_dict(state["swa"])

    def on_train_end(self) -> None:
        try:
            write_averaged_checkpoint(self, self.swa, "checkpoint_swa.pth")
        finally:  # whatever goes wrong above, nnU-Net's checkpoint_final.pth is written
            super().on_train_end()


class EMA(ExtTrainer):
    """Exponential moving average of the weights over the iterations. Writes `checkpoint_ema.pth`.

    The decay grows as (1 + t)/(10 + t) up to `ema_decay`, so that a short training is not mostly its first weights.
    """

    ema_decay: float = 0.999
    ema: AveragedModel

    def initialize(self) -> None:
        super().initialize()
        self.ema = AveragedModel(self.plain_network, avg_fn=self.moving_average)

    def moving_average(
        self, average: torch.Tensor, current: torch.Tensor, updates: torch.Tensor | int
    ) -> torch.Tensor:
        """One update of one tensor; `updates` counts those before it."""
        decay = torch.as_tensor((1 + updates) / (10 + updates)).clamp_max(self.ema_decay)
        return torch.lerp(current, average, decay.to(average.dtype))

    def train_step(self, batch: dict) -> dict:
        result = super().train_step(batch)
        self.ema.update_parameters(self.plain_network)
        return result

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), "ema": self.ema.state_dict()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        if "ema" in state:
            self.ema.load_state_dict(state["ema"])

    def on_train_end(self) -> None:
        try:
            write_averaged_checkpoint(self, self.ema, "checkpoint_ema.pth")
        finally:  # whatever goes wrong above, nnU-Net's checkpoint_final.pth is written
            super().on_train_end()


def write_averaged_checkpoint(trainer: ExtTrainer, average: AveragedModel, name: str) -> None:
    """Refreshes the BatchNorm statistics of an average, where there are any, and writes it for prediction."""
    if trainer.disable_checkpointing:
        return
    weights = refresh_batch_norm(
        average.module, average.module.state_dict(), training_images(trainer), device=trainer.device
    )
    if trainer.writes_files:
        trainer.save_weights(Path(trainer.output_folder) / name, weights)


def training_images(trainer: ExtTrainer) -> Iterator[torch.Tensor]:
    """The images of one epoch's training batches, (B, channels, *spatial)."""
    for _ in range(trainer.num_iterations_per_epoch):
        yield next(trainer.dataloader_train)["data"]


def mean_weights(members: Iterable[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Element-wise mean of state dicts, summed in fp64, returned as fp32; whole-number buffers from the last one.

    Raises:
        ValueError: if there are no members.
    """
    sums: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    count = 0
    for member in members:
        count += 1
        aliases = aliases or shared_names(member)
        for name in set(aliases.values()):
            tensor = member[name]
            if not tensor.is_floating_point():
                sums[name] = tensor.clone()
            elif name in sums:
                sums[name] += tensor
            else:
                sums[name] = tensor.to(torch.float64, copy=True)
    if not count:
        raise ValueError("A mean of weights needs at least one member; found none.")
    means = {name: (total / count).float() if total.is_floating_point() else total for name, total in sums.items()}
    return {name: means[first] for name, first in aliases.items()}


def shared_names(weights: dict[str, torch.Tensor]) -> dict[str, str]:
    """Every name to the first name of the same tensor: nnU-Net lists most tensors under several names."""
    first: dict[tuple[int, torch.Size], str] = {}
    return {name: first.setdefault((tensor.data_ptr(), tensor.shape), name) for name, tensor in weights.items()}


def refresh_batch_norm(
    network: nn.Module,
    weights: dict[str, torch.Tensor],
    images: Iterable[torch.Tensor],
    *,
    device: torch.device,
) -> dict[str, torch.Tensor]:
    """The weights with running statistics measured on `images`; unchanged where no module has running statistics.

    Averaged weights produce activations that no member's running statistics describe. nnU-Net's InstanceNorm has
    none; a BatchNorm variant (`nnUNetTrainerBN`) does. `network` gives the architecture and stays as it is.
    """
    if not any(isinstance(module, _BatchNorm) and module.track_running_stats for module in network.modules()):
        return weights
    averaged = deepcopy(network).to(device)
    averaged.load_state_dict(weights)
    update_bn(images, averaged, device=device)
    return averaged.state_dict()
