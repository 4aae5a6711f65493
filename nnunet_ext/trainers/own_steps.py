"""The base class of trainings without labels, which replace nnU-Net's data, targets, loss and validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from math import inf, nan
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.collate_outputs import collate_outputs
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn

from nnunet_ext.files.checkpoints import CANNOT_SEGMENT_KEY, EXTRA_STATE_KEY
from nnunet_ext.trainers.base import ExtTrainer
from nnunet_ext.trainers.curves import log_curve, mean_over_processes

BEST_CHECKPOINT = "checkpoint_best.pth"
CURVE_PREFIX = "validation "
NO_LABELS = LabelManager({"background": 0}, None)  # with a label to ignore, nnU-Net centres patches on the others
Targets = Tensor | list[Tensor]


class CannotSegmentError(RuntimeError):
    """A network that was trained without labels cannot segment."""


class OwnStepsTrainer(ExtTrainer):
    """A training with its own data, targets, loss and validation, defined by four hooks:

    - `get_dataloaders`, a hook of nnU-Net: two iterators over batches, which are dictionaries with at least `data`;
    - `inputs_and_targets`: the network's input from a batch, and what the loss compares its outputs with;
    - `training_loss`: a scalar from outputs and targets, in training and validation;
    - `validation_figures`: further metrics of a validation batch, for the log.

    Everything else is nnU-Net's: optimizer, schedule, gradient clipping, mixed precision, checkpoints, resuming, DDP.
    `checkpoint_best.pth` is that of the epoch with the lowest validation loss. Validation cases are not segmented.

    The network is the planned one inside `training_network`, without deep supervision. It cannot segment: checkpoints
    are marked, and prediction with them is refused, by this package and by stock nnU-Net. Other trainings can start
    from them with `-pretrained_weights`. In the table, such a part comes before the parts that build a network, so
    that nnU-Net's predictor asks this class first.
    """

    def set_hyperparameters(self) -> None:
        super().set_hyperparameters()
        self.enable_deep_supervision = False
        self._best_ema = -inf  # best negative validation loss; nnU-Net stores it and compares it only with NaN

    def inputs_and_targets(self, batch: Mapping[str, Any]) -> tuple[Tensor, Targets]:
        """Hook: the network's input (B, channels, *spatial), and a target or a list of targets for the loss.

        Args:
            batch: a batch of the loaders, with its tensors on the trainer's device.
        """
        raise NotImplementedError(f"{type(self).__name__} must define inputs_and_targets().")

    def training_loss(self, outputs: Any, targets: Any) -> Tensor:
        """Hook: a scalar loss of the network's outputs and the targets of `inputs_and_targets`."""
        raise NotImplementedError(f"{type(self).__name__} must define training_loss().")

    def validation_figures(self, outputs: Any, targets: Any) -> dict[str, float]:
        """Hook: metrics of one validation batch by name; the log shows their mean over the batches of an epoch."""
        return {}

    # --- nnU-Net's steps ---

    def _build_loss(self) -> Any:
        return self.training_loss

    def on_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch of this training's loaders in the form that nnU-Net's steps take, on the trainer's device."""
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
        self.logger.log("mean_fg_dice", nan, self.current_epoch)  # nnU-Net requires one value per epoch
        self.logger.log("dice_per_class_or_region", [], self.current_epoch)
        for name, mean in means.items():
            log_curve(self.logger, name, mean, self.current_epoch)
            self.print_to_log_file(f"{name}: {mean:.4g}")

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        score = -self.logger.get_value("val_losses", step=-1)
        if score > self._best_ema:
            self._best_ema = score
            self.print_to_log_file(f"New lowest validation loss: {-score:.4g}")
            self.current_epoch -= 1  # nnU-Net has already advanced the epoch, and a checkpoint stores the next one
            self.save_checkpoint(str(Path(self.output_folder) / BEST_CHECKPOINT))
            self.current_epoch += 1

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Switches deep supervision of networks whose decoder has such a switch; ignored for all others."""
        if hasattr(getattr(self.plain_network, "decoder", None), "deep_supervision"):
            super().set_deep_supervision_enabled(enabled)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Logs that no case is segmented; nnU-Net calls it after a training and with `--val`."""
        self.print_to_log_file(f"{type(self).__name__} learns without labels: no case is segmented for validation.")

    # --- refusing to segment ---

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Refuses to build a network for prediction; training calls `network_builder` instead.

        Raises:
            CannotSegmentError: always.
        """
        raise CannotSegmentError(
            f"{cls.__name__} is a training without labels: its network cannot segment. Train on labels starting from "
            f"its checkpoint with -pretrained_weights, and predict with the result."
        )

    def network_builder(self) -> Callable[..., nn.Module]:
        return super().build_network_architecture

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), CANNOT_SEGMENT_KEY: True}

    def prediction_checkpoint(self, weights: dict[str, Tensor]) -> dict[str, Any]:
        return {**super().prediction_checkpoint(weights), EXTRA_STATE_KEY: {CANNOT_SEGMENT_KEY: True}}
