"""Trainings that own their steps: they learn something else than nnU-Net's segmentation, from data without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from math import inf, nan
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.collate_outputs import collate_outputs
from torch import Tensor, nn

from nnunet_ext.files.checkpoints import CANNOT_SEGMENT_KEY, EXTRA_STATE_KEY
from nnunet_ext.trainers.base import ExtTrainer
from nnunet_ext.trainers.curves import log_curve, mean_over_processes

BEST_CHECKPOINT = "checkpoint_best.pth"
CURVE_PREFIX = "validation "
Targets = Tensor | list[Tensor]


class CannotSegmentError(RuntimeError):
    """A network was asked to segment that was trained for something else."""


class OwnStepsTrainer(ExtTrainer):
    """A training that brings its own data, targets, loss and validation, through four hooks:

    - `get_dataloaders`, nnU-Net's own hook: two iterators over batches, dictionaries with at least `data`;
    - `inputs_and_targets`: what the network sees of a batch, and what the loss compares its outputs with;
    - `training_loss`: a scalar of outputs and targets, in training and validation;
    - `validation_figures`: further figures of a validation batch, for the log.

    All else is nnU-Net's: optimizer, schedule, gradient clipping, mixed precision, checkpoints, resuming, DDP. The
    epoch with the lowest validation loss is `checkpoint_best.pth`. There is nothing to segment at the end.

    The network is the planned one with `training_network` around it; deep supervision is off. What such a training
    writes cannot segment. Its checkpoints say so, and whoever predicts with them, ours or stock, is refused; other
    trainings can start from them with `-pretrained_weights`. As a part of a trainer's name it stands before the parts
    that build a network, so that nnU-Net's predictor asks this class first.
    """

    def set_hyperparameters(self) -> None:
        super().set_hyperparameters()
        self.enable_deep_supervision = False
        self._best_ema = -inf  # the best negative validation loss; nnU-Net stores it, and compares it with NaN only

    def inputs_and_targets(self, batch: Mapping[str, Any]) -> tuple[Tensor, Targets]:
        """Hook: the network's input (B, channels, *spatial) and a target or a list of targets for the loss.

        Args:
            batch: from the loaders, with its tensors on the trainer's device.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what its network sees: inputs_and_targets().")

    def training_loss(self, outputs: Any, targets: Any) -> Tensor:
        """Hook: a scalar, of what the network returns and what `inputs_and_targets` gave."""
        raise NotImplementedError(f"{type(self).__name__} must say what it learns: training_loss().")

    def validation_figures(self, outputs: Any, targets: Any) -> dict[str, float]:
        """Hook: figures of one validation batch by name; the log shows their mean over an epoch's batches."""
        return {}

    # --- nnU-Net's steps ---

    def _build_loss(self) -> Any:
        return self.training_loss

    def on_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch as nnU-Net's steps take it, from one of this training's loaders."""
        moved = {
            key: value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }
        inputs, targets = self.inputs_and_targets(moved)
        return {"data": inputs, "target": targets}

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        return super().train_step(self.on_device(batch))

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        prepared = self.on_device(batch)
        with torch.autocast(self.device.type) if self.device.type == "cuda" else nullcontext():
            outputs = self.network(prepared["data"])
            loss = self.training_loss(outputs, prepared["target"])
        figures = self.validation_figures(outputs, prepared["target"])
        return {"loss": float(loss), **{CURVE_PREFIX + name: float(figure) for name, figure in figures.items()}}

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        means = {name: mean_over_processes(values) for name, values in collate_outputs(val_outputs).items()}
        self.logger.log("val_losses", means.pop("loss"), self.current_epoch)
        self.logger.log("mean_fg_dice", nan, self.current_epoch)  # nnU-Net wants one value per epoch
        self.logger.log("dice_per_class_or_region", [], self.current_epoch)
        for name, mean in means.items():
            log_curve(self.logger, name, mean, self.current_epoch)
            self.print_to_log_file(f"{name}: {mean:.4g}")

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        score = -self.logger.get_value("val_losses", step=-1)
        if score > self._best_ema:
            self._best_ema = score
            self.print_to_log_file(f"The lowest validation loss up to now: {-score:.4g}")
            self.current_epoch -= 1  # nnU-Net has counted on, and stores the next one
            self.save_checkpoint(str(Path(self.output_folder) / BEST_CHECKPOINT))
            self.current_epoch += 1

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """nnU-Net's, for networks that have a decoder with such a switch; others have nothing to switch."""
        if hasattr(getattr(self.plain_network, "decoder", None), "deep_supervision"):
            super().set_deep_supervision_enabled(enabled)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Says that there is nothing to segment; nnU-Net calls it after a training and with `--val`."""
        self.print_to_log_file(f"{type(self).__name__} learns without labels: no case is segmented for validation.")

    # --- what cannot be predicted with ---

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Refuses: who asks the class for a network wants to segment with it. Training asks `network_builder`.

        Raises:
            CannotSegmentError: always.
        """
        raise CannotSegmentError(
            f"{cls.__name__} is a training without labels: its network does not segment. Start a training from its "
            f"checkpoint with -pretrained_weights, and predict with that."
        )

    def network_builder(self) -> Callable[..., nn.Module]:
        return super().build_network_architecture

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), CANNOT_SEGMENT_KEY: True}

    def prediction_checkpoint(self, weights: dict[str, Tensor]) -> dict[str, Any]:
        return {**super().prediction_checkpoint(weights), EXTRA_STATE_KEY: {CANNOT_SEGMENT_KEY: True}}
