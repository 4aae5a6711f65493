"""Cyclical checkpoint sampling: posterior samples of the weights from one training (arXiv 2212.06278)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import torch
from torch import distributed

from nnunet_ext.architectures.posterior import posterior_weights
from nnunet_ext.files.checkpoints import CheckpointError, cast_weights, file_sha256, load_checkpoint, save_checkpoint
from nnunet_ext.samples import (
    Sample,
    add_to_manifest,
    changed_message,
    read_manifest,
    remove_samples,
    sample_file_name,
    select_all_modes,
    select_last_cycle,
)
from nnunet_ext.schedules import CyclePlan, DecayHorizon
from nnunet_ext.trainers.averaging.averaged_weights import mean_weights, refresh_batch_norm, training_images
from nnunet_ext.trainers.base import EpochSchedule, ExtTrainer
from nnunet_ext.trainers.networks.posterior import posterior_trainer_name


class Cyclical(ExtTrainer):
    """Trains with a cyclical learning rate and saves the weights of every epoch on the plateau of a cycle.

    Writes `checkpoint_c<cycle>_e<epoch>.pth` and `samples.json` during the training. At the end it writes
    `checkpoint_posterior.pth` (the ensemble in one network, for the stock predictor) and `checkpoint_swa.pth` (the
    mean of the last cycle's samples).
    """

    num_epochs: int
    default_epochs = 1200
    cycles: int = 3
    restart_lr_factor: float | None = None  # multiplies initial_lr; None: see `restart_lr`
    long_cycle_restart_lr_factor: float = 10.0  # the paper's; 0.1 with nnU-Net's 0.01
    long_cycle_epochs: int = 100
    plateau_start: float = 0.8
    lr_exponent: float = 0.9
    decay_horizon: DecayHorizon = "total"
    skip_first_restart: bool = False  # begin the training at initial_lr instead of the restart rate
    sample_dtype: Literal["float32", "float16"] = "float32"  # float16 halves the disk space of the samples
    posterior_members: int = 30
    posterior_stride: int = 1

    def set_hyperparameters(self) -> None:
        super().set_hyperparameters()
        self.replace_defaults(num_epochs=self.default_epochs)

    @property
    def restart_lr(self) -> float:
        """The rate of the first epoch of a cycle; by default the paper's in long cycles, `initial_lr` in others.

        An epoch at the paper's rate has to be a small part of the cycle that makes up for it.
        """
        factor = self.restart_lr_factor
        if factor is None:
            epochs_in_cycle = self.num_epochs // self.cycles
            factor = self.long_cycle_restart_lr_factor if epochs_in_cycle >= self.long_cycle_epochs else 1.0
        return self.initial_lr * factor

    @property
    def cycle_plan(self) -> CyclePlan:
        """The cycles of this training."""
        return CyclePlan(
            total_epochs=self.num_epochs,
            cycles=self.cycles,
            initial_lr=self.initial_lr,
            restart_lr=self.restart_lr,
            plateau_start=self.plateau_start,
            exponent=self.lr_exponent,
            decay_horizon=self.decay_horizon,
            skip_first_restart=self.skip_first_restart,
        )

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, EpochSchedule]:
        optimizer, _ = super().configure_optimizers()
        return optimizer, EpochSchedule(optimizer, self.cycle_plan.learning_rate_at)

    def on_train_start(self) -> None:
        super().on_train_start()
        plan = self.cycle_plan
        self.print_to_log_file(
            f"Cyclical sampling: {plan.used_cycles} cycles of {plan.epochs_in_cycle} epochs "
            f"({self.num_epochs} in all), restart rate {plan.restart_lr:g}, decay horizon {plan.decay_horizon}, "
            f"{sum(map(plan.samples_weights_at, range(self.num_epochs)))} samples."
        )
        if self.current_epoch == 0 and self.writes_files:
            remove_samples(Path(self.output_folder))

    def on_epoch_end(self) -> None:
        # before nnU-Net's own: a run killed in between must not leave a resume checkpoint without its sample
        if self.writes_files and self.cycle_plan.samples_weights_at(self.current_epoch):
            self.save_sample()
        super().on_epoch_end()

    def save_sample(self) -> None:
        """Writes the current weights as a sample and adds it to the manifest."""
        plan, epoch, folder = self.cycle_plan, self.current_epoch, Path(self.output_folder)
        name = sample_file_name(plan.cycle_of(epoch), epoch)
        self.save_weights(
            folder / name, cast_weights(self.plain_network.state_dict(), getattr(torch, self.sample_dtype))
        )
        pseudo_dice = float(self.logger.get_value("mean_fg_dice", step=-1))
        sample = Sample(
            file=name,
            cycle=plan.cycle_of(epoch),
            epoch=epoch,
            epoch_in_cycle=plan.epoch_in_cycle(epoch),
            learning_rate=plan.learning_rate_at(epoch),
            pseudo_dice=pseudo_dice if math.isfinite(pseudo_dice) else None,
            sha256=file_sha256(folder / name),
        )
        add_to_manifest(folder, sample)
        self.print_to_log_file(f"Sampled the weights of cycle {sample.cycle}: {name}")

    def on_train_end(self) -> None:
        try:
            if not self.disable_checkpointing:
                if self.is_ddp:
                    distributed.barrier()  # rank 0 has written its last sample
                self.write_average()
                if self.writes_files:
                    self.write_posterior()
        finally:  # nnU-Net's checkpoint_final.pth is written even if this fails
            super().on_train_end()

    def write_average(self) -> None:
        """Writes `checkpoint_swa.pth`, the mean of the last cycle's samples; BatchNorm is refreshed on every rank."""
        folder = Path(self.output_folder)
        samples = select_last_cycle(read_manifest(folder))
        weights = mean_weights(load_checkpoint(folder / sample.file)["network_weights"] for sample in samples)
        weights = refresh_batch_norm(self.plain_network, weights, training_images(self), device=self.device)
        if self.writes_files:
            self.save_weights(folder / "checkpoint_swa.pth", weights)

    def write_posterior(self) -> None:
        """Writes `checkpoint_posterior.pth`, the latest samples of all cycles in one network.

        Raises:
            CheckpointError: if a sample is not the file that the training wrote.
        """
        folder = Path(self.output_folder)
        samples = select_all_modes(
            read_manifest(folder),
            min(self.posterior_members, len(read_manifest(folder))),
            stride=self.posterior_stride,
        )
        for sample in samples:
            if file_sha256(folder / sample.file) != sample.sha256:  # reading a memory-mapped file verifies nothing
                raise CheckpointError(changed_message(folder / sample.file))
        members = [load_checkpoint(folder / sample.file, mmap=True)["network_weights"] for sample in samples]
        weights = posterior_weights(
            members, regions=self.label_manager.has_regions, mirror_axes=self.inference_allowed_mirroring_axes
        )
        checkpoint = {
            **self.prediction_checkpoint(weights),
            "trainer_name": posterior_trainer_name(self.network_parts, len(members)),
            "inference_allowed_mirroring_axes": None,  # PosteriorNetwork mirrors its input itself
        }
        save_checkpoint(checkpoint, folder / "checkpoint_posterior.pth")
        self.print_to_log_file(f"Wrote checkpoint_posterior.pth with {len(members)} samples.")
